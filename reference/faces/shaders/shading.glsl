// Inputs, grain, the hair line and the light model shared by all fragment stages.
in vec3 v_normal; in vec3 v_rest; in vec3 v_position; in vec3 v_in_key; in vec2 v_uv;
in vec2 v_unrolled; in vec3 v_flush;
flat in int v_material; in float v_occlusion;
out vec4 pixel;

uniform mat3 turn;
uniform vec3 camera;
uniform vec3 key_direction, key_color, fill_direction, fill_color, sky_color, ground_color;
uniform vec3 hair; uniform vec2 grain_offset;
uniform sampler2DShadow key_depth; uniform float hardness;
uniform sampler2D grain;                                // fine, pores, blotches, spots
uniform float hairline, fringe;

// Tileable noise around 1/2; `squeeze` lengthens it along the hair.
vec4 grain_at(vec2 squeeze) {
    return texture(grain, v_unrolled * squeeze * 0.5 + grain_offset);
}

// Positive where scalp hair grows, in rest coordinates; the value is a distance of sorts.
float hair_region(vec3 c) {
    float ax = abs(c.x);
    float front_height = 7.98 - hairline - 0.10 * ax - 1.1 * max(ax - 0.38, 0.0);
    float front = c.y - front_height + fringe * 0.22 * smoothstep(0.75, 0.2, ax) * step(0.6, c.z);
    float temple = 0.62 - c.z + (c.y - 7.15) * 0.75;
    float nape = c.y - 6.55 - max(c.z, 0.0) * 0.9;
    float sides = (ax > 0.55 || c.z < 0.3) ? min(temple, nape) : -1.0;
    float ear = min(min(ax - 0.70, 0.28 - abs(c.y - 7.14)), c.z + 0.12);
    return ear > 0.0 ? -1.0 : max(min(front, 1.0), sides);
}

vec3 light_surface(vec3 albedo, vec3 n, float open_sky, float specular, float gloss, float scatter) {
    vec3 eye = normalize(camera - v_position);
    vec3 wrap = vec3(0.28, 0.12, 0.08) * scatter;       // red light travels furthest under skin
    float facing_key = dot(n, key_direction);
    vec3 from_key = max((vec3(facing_key) + wrap) / (1.0 + wrap), 0.0);
    vec3 from_fill = max((vec3(dot(n, fill_direction)) + wrap) / (1.0 + wrap), 0.0);
    vec3 ambient = mix(ground_color, sky_color, 0.5 + 0.5 * n.y) * open_sky;
    float shadow = mix(1.0, open_sky, 0.65);
    float reached = 1.0 - hardness * (1.0 - texture(key_depth, v_in_key));
    vec3 lit = albedo * (ambient + (key_color * reached * from_key + fill_color * from_fill) * shadow);
    float highlight = pow(max(dot(n, normalize(key_direction + eye)), 0.0), gloss) * step(0.0, facing_key);
    float grazing = 1.0 - max(dot(n, eye), 0.0);
    float rim = grazing * grazing * grazing * grazing * 0.25;
    return lit + specular * open_sky * (key_color * reached * highlight + sky_color * rim);
}

// Filmic curve and display gamma. Never black: black marks the background for compositing.
void write_pixel(vec3 color) {
    color = max(color, 0.0);
    color = color * (1.0 + color * 0.25) / (1.0 + color * 0.62);
    vec3 root = sqrt(color);                            // gamma 1/2.2 within 3/255, without pow
    pixel = vec4(max(mix(root, sqrt(root), 0.155), vec3(0.006)), 1.0);
}
