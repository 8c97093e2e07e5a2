uniform vec3 gaze_right, gaze_left, iris, tooth, lashes, skin;
uniform float pupil;

const int EYE = 1, TEETH = 2, TONGUE = 3;

vec3 eyeball(vec3 n) {
    const float IRIS = 0.44;                            // angular radius, radians
    vec3 gaze = v_rest.x > 0.0 ? gaze_left : gaze_right;
    float angle = acos(clamp(dot(normalize(transpose(turn) * n), gaze), -1.0, 1.0));
    vec3 albedo = vec3(0.89, 0.87, 0.85) * mix(1.0, 0.93, smoothstep(0.5, 1.1, angle));
    albedo = mix(albedo, vec3(0.75, 0.5, 0.45), 0.3 * smoothstep(0.8, 1.2, angle));
    vec3 color = iris * (1.3 - 0.9 * smoothstep(0.2, IRIS, angle)) * 1.4;
    albedo = mix(albedo, color, smoothstep(IRIS + 0.035, IRIS - 0.03, angle));
    albedo = mix(albedo, vec3(0.01), smoothstep(pupil + 0.04, pupil - 0.03, angle));
    vec3 lit = light_surface(albedo * albedo, n, v_occlusion, 0.1, 20.0, 0.3);
    vec3 half_way = normalize(key_direction + normalize(camera - v_position));
    return lit + key_color * 1.6 * pow(max(dot(n, half_way), 0.0), 220.0);
}

vec3 teeth() {
    // The helper strips lean inwards: take the normals of the dental arch instead.
    vec3 n = turn * normalize(vec3(v_rest.x, 0.0, max(v_rest.z - 0.9, 0.1)));
    float depth = smoothstep(0.75, 1.45, v_rest.z);
    float arch = atan(v_rest.x, v_rest.z - 0.9);
    float within = abs(fract(arch * 4.6) - 0.5) * 2.0;  // 1 between two teeth
    vec3 albedo = tooth * (1.0 - 0.16 * smoothstep(0.75, 1.0, within));
    float gum = v_rest.y > 6.66 ? smoothstep(6.795, 6.815, v_rest.y - 0.015 * within)
                                : smoothstep(6.535, 6.505, v_rest.y + 0.02 * within);
    albedo = mix(albedo, vec3(0.62, 0.34, 0.33), gum);
    return light_surface(albedo * albedo, n, 0.6 + 0.4 * v_occlusion, 0.2, 30.0, 0.2) * mix(0.25, 1.0, depth);
}

void main() {
    vec3 n = normalize(v_normal);
    if (v_material == EYE) write_pixel(eyeball(n));
    else if (v_material == TEETH) write_pixel(teeth());
    else if (v_material == TONGUE) write_pixel(light_surface(vec3(0.45, 0.14, 0.14), n, 0.5, 0.15, 20.0, 0.5) * smoothstep(0.9, 1.4, v_rest.z));
    else write_pixel(light_surface(mix(lashes, 0.8 * skin * skin, 0.6 * step(v_rest.y, 7.265)), n, v_occlusion, 0.0, 1.0, 0.0));
}
