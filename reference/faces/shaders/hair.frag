uniform int hair_style;                                 // 0 bald, 1 cropped, 2 short, 3 long

const int CAP = 5;

void main() {
    vec3 c = v_rest;
    vec3 n = normalize(v_normal);
    if (dot(n, normalize(camera - v_position)) < 0.0) n = -n;
    float strands = clamp(0.5 + 1.4 * (0.6 * grain_at(vec2(0.6, 0.06)).r + 0.4 * grain_at(vec2(1.0, 0.08)).r - 0.5), 0.0, 1.0);
    if (v_material == CAP) {
        if (hair_region(c) + 0.05 * (strands - 0.5) < 0.0) discard;
    } else if (c.z > 0.45 && c.y < 7.95) discard;    // tresses before the shoulders come apart
    float pale = dot(hair, vec3(0.333));                // pale hair shows its strands less
    vec3 albedo = hair * mix(0.55 + 0.9 * strands, 0.85 + 0.3 * strands, smoothstep(0.1, 0.6, pale));
    vec3 along = normalize(vec3(0.0, 1.0, 0.0) - n * n.y + 1e-3);
    float across = dot(along, normalize(key_direction + normalize(camera - v_position)));
    float gleam = pow(max(1.0 - across * across, 0.0), 24.0) * (0.4 + 0.6 * strands) * max(dot(n, key_direction) + 0.3, 0.0);
    vec3 color = light_surface(albedo, n, v_occlusion * 0.8 + 0.2 * strands, 0.0, 1.0, 0.0);
    if (v_material != CAP) color *= mix(0.45, 1.0, smoothstep(-0.5, 0.5, c.z));    // the head's own shade
    write_pixel(color + hair * 0.3 * key_color * gleam);
}
