// The skin as the key light sees it.
in vec3 position;
uniform mat4 head_to_key;
void main() { gl_Position = head_to_key * vec4(position, 1.0); }
