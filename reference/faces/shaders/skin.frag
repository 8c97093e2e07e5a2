uniform sampler2D masks, wrinkles;
uniform vec4 wrinkle_box;                               // x min, x max, y min, y max
uniform vec3 skin, brow_rgb, lip, cloth;
uniform vec4 brow;                                      // thickness, arch, offset, opacity
uniform float lip_opacity, beard, roughness, blush, eye_shadow, aged;
uniform int hair_style;

void main() {
    vec3 c = v_rest;
    float ax = abs(c.x);
    vec3 n = normalize(v_normal);
    vec2 mask = texture(masks, v_uv).rg;                // lips, inside of the mouth
    float inside = step(0.5, mask.g);

    vec4 texel = grain_at(vec2(1.0));
    float fine = texel.r, pores = texel.g, blotches = texel.b;

    float crease = 0.0;
    if (c.z > 0.55) {
        vec2 at = (c.xy - wrinkle_box.xz) / (wrinkle_box.yw - wrinkle_box.xz);
        vec3 relief = texture(wrinkles, at).rgb;
        vec2 slope = relief.rg * 1.1;
        slope += roughness * 0.16 * (vec2(fine, pores) - 0.5);
        vec3 in_head = transpose(turn) * n;
        n = turn * normalize(in_head - vec3(slope, 0.0));
        crease = clamp(-relief.b, 0.0, 1.0);
    }

    vec3 albedo = skin * 1.04 * (1.0 + (0.14 + 0.30 * aged) * (blotches - 0.5) + 0.14 * roughness * (fine - 0.5) + 0.10 * roughness * (pores - 0.5));
    albedo = mix(albedo, albedo * vec3(1.06, 0.82, 0.80), (v_flush.x + 0.7 * v_flush.y) * 0.55 * blush);
    albedo *= 1.0 - 0.14 * v_flush.z * eye_shadow;
    if (aged > 0.0) {                                   // liver spots
        float spots = smoothstep(0.78, 0.90, texel.a) * aged * 0.45;
        albedo *= 1.0 - spots * vec3(0.25, 0.38, 0.45);
    }

#ifdef BEARD
    {
        float jaw = smoothstep(6.64, 6.46, c.y - 0.9 * max(ax - 0.30, 0.0) + 0.05 * (fine - 0.5));
        float moustache = smoothstep(0.05, 0.0, abs(c.y - 6.775 + 0.12 * ax) - 0.036 * (1.0 - ax / 0.42)) * smoothstep(0.40, 0.30, ax) * step(1.2, c.z);
        float where = max(jaw, moustache) * smoothstep(5.95, 6.2, c.y) * (1.0 - mask.r) * smoothstep(0.20, 0.50, c.z);
        albedo = mix(albedo, hair * 0.8 + 0.02, where * beard * (0.5 + 0.5 * pores));
    }
#endif

    float on_lip = smoothstep(0.2, 0.8, mask.r);
    albedo = mix(albedo, skin * lip * 1.08, on_lip * lip_opacity);

    if (abs(c.y - 7.53) < 0.17 && c.z > 0.7) {
        float t = clamp((ax - 0.09) / 0.52, 0.0, 1.0);
        float brow_height = 7.485 + brow.z + 0.042 * sin(t * 2.3) + brow.y * sin(t * 2.6) * 0.7 - 0.075 * t * t;
        float brow_half = brow.x * (1.0 - 0.62 * t * t) * smoothstep(-0.05, 0.10, (ax - 0.07) / 0.5);
        float strands = grain_at(vec2(1.0, 0.4)).r;
        float off = abs(c.y - brow_height) + 0.016 * (strands - 0.5);
        float on_brow = smoothstep(brow_half + 0.013, brow_half - 0.013, off) * smoothstep(0.66, 0.56, ax) * smoothstep(0.06, 0.12, ax);
        albedo = mix(albedo, brow_rgb, on_brow * brow.w * (0.8 + 0.3 * strands));
    }

    if (hair_style > 0 && (c.y > 7.5 || c.z < 1.0)) {   // hair roots: a soft edge under the cap
        float root = hair_region(c) + 0.05 * (fine - 0.5);
        albedo = mix(albedo, hair * 0.75, smoothstep(-0.06, 0.02, root));
    }

    albedo = mix(albedo, cloth * (0.85 + 0.3 * fine), smoothstep(0.01, -0.01, c.y - 5.80 - 0.1 * c.z));

    // One call for skin and mouth: llvmpipe runs both sides of a branch.
    float sky = mix(v_occlusion * (1.0 - 0.55 * crease), 0.25, inside);
    albedo = mix(albedo, vec3(0.53, 0.26, 0.26), inside);
    float specular = mix(0.10 + 0.10 * on_lip + 0.05 * (1.0 - roughness), 0.05, inside);
    vec3 color = light_surface(albedo * albedo, n, sky, specular, mix(14.0, 34.0, on_lip), 1.0 - inside);
    color *= mix(1.0, smoothstep(0.6, 1.4, c.z) * 0.7, inside);
    write_pixel(color * mix(vec3(1.0), vec3(0.85, 0.72, 0.68), crease * 0.4));
}
