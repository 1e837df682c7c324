// What viewer.js and splats.js use of three.js; README.md says how three.min.js is made from this list.
export {
	Box3,
	BufferAttribute,
	Color,
	DataTexture,
	DirectionalLight,
	FloatType,
	HemisphereLight,
	InstancedBufferAttribute,
	InstancedBufferGeometry,
	Matrix4,
	Mesh,
	MeshBasicMaterial,
	MeshStandardMaterial,
	PerspectiveCamera,
	RGBAFormat,
	Scene,
	ShaderMaterial,
	Sphere,
	Vector2,
	Vector3,
	WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
export { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
