// What viewer.js uses of three.js; README.md says how three.min.js is made from this list.
export {
	Box3,
	Color,
	DirectionalLight,
	HemisphereLight,
	MeshBasicMaterial,
	MeshStandardMaterial,
	PerspectiveCamera,
	Scene,
	Sphere,
	WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
export { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
