// One vertex stage for skin, mouth, eyes and hair.
in vec3 position; in vec3 normal;                       // posed, head coordinates (dm)
in vec3 rest; in vec2 uv; in float material; in vec2 occlusion;
uniform mat4 head_to_clip; uniform mat3 turn; uniform float mouth_opening;
out vec3 v_normal; out vec3 v_rest; out vec3 v_position; out vec2 v_uv;
flat out int v_material; out float v_occlusion;

void main() {
    gl_Position = head_to_clip * vec4(position, 1.0);
    v_normal = turn * normal;
    v_position = turn * position;
    v_rest = rest;
    v_uv = uv;
    v_material = int(material + 0.5);
    v_occlusion = mix(occlusion.x, occlusion.y, mouth_opening);
}
