// Draws the inlined Gaussians (.splat, world frame: front at +x, z up) as they were trained: projected to the screen with
// a low-pass filter of 0.3 square pixels, sorted here for each view, composited back to front without depth test.
"use strict";

const TEXELS = 4; // of each Gaussian: centre, covariance (xx, xy, xz, yy), (yz, zz), colour with opacity
const ROW = 256; // Gaussians in a row of the texture

const VERTEX = `
precision highp float;
uniform highp sampler2D table;
uniform vec2 viewport; // device pixels
in uint order;
out vec2 offset; // from the centre, in pixels
flat out vec3 conic;
flat out vec4 tint;

vec4 texel(uint i) {
	return texelFetch(table, ivec2(int(order % ${ROW}u) * ${TEXELS} + int(i), int(order / ${ROW}u)), 0);
}

void main() {
	vec4 a = texel(1u), b = texel(2u);
	vec3 local = (modelViewMatrix * vec4(texel(0u).xyz, 1.0)).xyz;
	gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside, unless it is seen
	if (local.z > -0.05) return;
	vec2 focal = 0.5 * viewport * vec2(projectionMatrix[0][0], projectionMatrix[1][1]);
	vec2 widest = 1.3 * 0.5 * viewport / focal;
	vec2 slope = clamp(local.xy / -local.z, -widest, widest); // the affine approximation is taken at most so far outside
	mat3 turn = mat3(modelViewMatrix);
	mat3 covariance = turn * mat3(a.x, a.y, a.z, a.y, a.w, b.x, a.z, b.x, b.y) * transpose(turn);
	vec3 across = focal.x / -local.z * vec3(1.0, 0.0, slope.x);
	vec3 up = focal.y / -local.z * vec3(0.0, 1.0, slope.y);
	float xx = dot(across, covariance * across), xy = dot(across, covariance * up), yy = dot(up, covariance * up);
	float before = max(xx * yy - xy * xy, 0.0);
	xx += 0.3;
	yy += 0.3;
	float after = xx * yy - xy * xy;
	tint = texel(3u);
	tint.a *= sqrt(before / after); // as much light as before the filter
	if (tint.a < 1.0 / 255.0) return;
	conic = vec3(yy, -xy, xx) / after;
	offset = position.xy * sqrt(2.0 * log(255.0 * tint.a)) * sqrt(vec2(xx, yy));
	vec4 middle = projectionMatrix * vec4(local, 1.0);
	gl_Position = vec4(middle.xy / middle.w + 2.0 * offset / viewport, 0.0, 1.0);
}`;

const FRAGMENT = `
precision highp float;
in vec2 offset;
flat in vec3 conic;
flat in vec4 tint;
out vec4 color;

void main() {
	float power = conic.x * offset.x * offset.x + 2.0 * conic.y * offset.x * offset.y + conic.z * offset.y * offset.y;
	float alpha = min(tint.a * exp(-0.5 * power), 0.99);
	if (alpha < 1.0 / 255.0) discard;
	color = vec4(tint.rgb * alpha, alpha); // as pictures hold it, so no conversion
}`;

// Of the 32 bytes of each Gaussian: float texels for the card, and the centres to sort by.
function readSplats(bytes) {
	const count = bytes.byteLength / 32;
	const floats = new Float32Array(bytes.buffer, bytes.byteOffset, 8 * count);
	const rows = Math.ceil(count / ROW);
	const texels = new Float32Array(4 * TEXELS * ROW * rows);
	const centers = new Float32Array(3 * count);
	for (let i = 0; i < count; i++) {
		const center = floats.subarray(8 * i, 8 * i + 3);
		const color = bytes.subarray(32 * i + 24, 32 * i + 28);
		const [xx, xy, xz, yy, yz, zz] = covariance(floats.subarray(8 * i + 3, 8 * i + 6), bytes.subarray(32 * i + 28, 32 * i + 32));
		centers.set(center, 3 * i);
		texels.set([...center, 0, xx, xy, xz, yy, yz, zz, 0, 0, ...Array.from(color, (c) => c / 255)], 4 * TEXELS * i);
	}
	return { count, rows, texels, centers };
}

// R diag(size^2) R^T, from the quaternion w, x, y, z in bytes.
function covariance(size, turn) {
	const q = Array.from(turn, (t) => t / 128 - 1);
	const [w, x, y, z] = q.map((t) => t / Math.hypot(...q));
	const rotation = [
		[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
		[2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
		[2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
	];
	const entry = (i, j) => [0, 1, 2].reduce((sum, k) => sum + rotation[i][k] * rotation[j][k] * size[k] ** 2, 0);
	return [entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2), entry(2, 2)];
}

// Farthest first along a direction of the view, by counting in 65536 bins; equal ones keep their order.
function sortByDepth(centers, direction, order) {
	const count = order.length, depths = new Float32Array(count);
	let low = Infinity, high = -Infinity;
	for (let i = 0; i < count; i++) {
		depths[i] = centers[3 * i] * direction.x + centers[3 * i + 1] * direction.y + centers[3 * i + 2] * direction.z;
		low = Math.min(low, depths[i]);
		high = Math.max(high, depths[i]);
	}
	const bins = new Uint32Array(count), starts = new Uint32Array(65537);
	const scale = 65535 / Math.max(high - low, 1e-12);
	for (let i = 0; i < count; i++) {
		bins[i] = (high - depths[i]) * scale;
		starts[bins[i] + 1]++;
	}
	for (let i = 0; i < 65536; i++) starts[i + 1] += starts[i];
	for (let i = 0; i < count; i++) order[starts[bins[i]]++] = i;
}

// An object for the scene, its front at +z and its top at +y as those of the mesh; sort(renderer, camera) before each frame.
function makeSplats(bytes) {
	const { count, rows, texels, centers } = readSplats(bytes);
	const table = new THREE.DataTexture(texels, TEXELS * ROW, rows, THREE.RGBAFormat, THREE.FloatType);
	table.needsUpdate = true;
	const geometry = new THREE.InstancedBufferGeometry();
	geometry.instanceCount = count;
	geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array([-1, -1, 0, 1, -1, 0, 1, 1, 0, -1, 1, 0]), 3));
	geometry.setIndex([0, 1, 2, 0, 2, 3]);
	const order = new THREE.InstancedBufferAttribute(new Uint32Array(count), 1);
	geometry.setAttribute("order", order);
	const uniforms = { table: { value: table }, viewport: { value: new THREE.Vector2() } };
	const material = new THREE.ShaderMaterial({
		vertexShader: VERTEX, fragmentShader: FRAGMENT, uniforms, glslVersion: "300 es",
		transparent: true, premultipliedAlpha: true, depthTest: false, depthWrite: false,
	});
	const splats = new THREE.Mesh(geometry, material);
	splats.frustumCulled = false;
	splats.applyMatrix4(new THREE.Matrix4().makeBasis(new THREE.Vector3(0, 0, 1), new THREE.Vector3(1, 0, 0), new THREE.Vector3(0, 1, 0)));
	const sorted = new THREE.Vector3();
	function sort(renderer, camera) {
		renderer.getDrawingBufferSize(uniforms.viewport.value);
		const [x, y, z] = camera.getWorldDirection(new THREE.Vector3()).toArray();
		const direction = new THREE.Vector3(z, x, y); // in the frame of the file
		if (direction.distanceTo(sorted) < 1e-4) return;
		sorted.copy(direction);
		sortByDepth(centers, direction, order.array);
		order.needsUpdate = true;
	}
	return { object: splats, count, sort };
}
