// One vertex stage for skin, mouth, eyes and hair.
in vec3 position; in vec3 normal;                       // posed, head coordinates (dm)
in vec3 rest; in vec2 uv; in float material; in vec2 occlusion;
uniform mat4 head_to_clip, head_to_key; uniform mat3 turn; uniform float mouth_opening;
out vec3 v_normal; out vec3 v_rest; out vec3 v_position; out vec3 v_in_key; out vec2 v_uv;
out vec2 v_unrolled; out vec3 v_flush;
flat out int v_material; out float v_occlusion;

float spot(vec2 at, vec2 centre, vec2 radius) {
    vec2 d = (at - centre) / radius;
    return exp(-dot(d, d));
}

void main() {
    gl_Position = head_to_clip * vec4(position, 1.0);
    v_normal = turn * normal;
    v_position = turn * position;
    v_in_key = (head_to_key * vec4(position + 0.025 * normal, 1.0)).xyz * 0.5 + 0.5;
    v_rest = rest;
    v_uv = uv;
    v_material = int(material + 0.5);
    v_occlusion = mix(occlusion.x, occlusion.y, mouth_opening);
    v_unrolled = vec2(1.2 * atan(rest.x, rest.z - 0.1), rest.y);  // a cylinder: no streaks on the cheeks
    vec2 at = vec2(abs(rest.x), rest.y);
    v_flush.x = spot(at, vec2(0.48, 6.86), vec2(0.2, 0.17));      // cheeks, nose, under the eyes
    v_flush.y = spot(at, vec2(0.0, 6.9), vec2(0.12, 0.1)) * step(1.4, rest.z);
    v_flush.z = spot(at, vec2(0.32, 7.10), vec2(0.17, 0.06)) * step(0.9, rest.z);
}
