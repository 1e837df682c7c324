// Shows the inlined GLB, or the inlined Gaussians where there are some: drag to orbit, wheel to zoom, right-drag to pan;
// buttons or T, S, W, G, U switch the looks.
"use strict";

const element = (id) => document.getElementById(id);
const pressed = (id) => element(id).getAttribute("aria-pressed") === "true";

function report(state, message) {
	document.body.dataset.state = state;
	element("message").textContent = message;
}

function inlinedBytes(id) {
	return Uint8Array.from(atob(element(id).textContent.trim()), (character) => character.charCodeAt(0));
}

function showFacts(mesh, splats) {
	const metadata = JSON.parse(element("metadata").textContent);
	const facts = Object.entries(metadata).filter(([key]) => key !== "prompt").map(([key, value]) => `${key} ${value}`);
	const triangles = mesh.geometry.index.count / 3;
	const gaussians = splats ? [`${splats.count.toLocaleString("en")} Gaussians`] : [];
	element("facts").textContent = [...gaussians, `${triangles.toLocaleString("en")} triangles`, ...facts].join(" · ");
}

// One material for each look; the loader's own is the textured, lit one.
function makeMaterials(loaded) {
	const textured = { map: loaded.map, vertexColors: loaded.vertexColors };
	return {
		lit: loaded,
		unlit: new THREE.MeshBasicMaterial(textured),
		textureless: new THREE.MeshStandardMaterial({ color: 0xb8bec4, roughness: 0.8, normalMap: loaded.normalMap }),
		textureless_unlit: new THREE.MeshBasicMaterial({ color: 0xb8bec4 }),
	};
}

function start(gltf) {
	const renderer = new THREE.WebGLRenderer({ antialias: true });
	renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
	document.body.prepend(renderer.domElement);

	const scene = new THREE.Scene();
	scene.background = new THREE.Color(0xeceff1);
	scene.add(gltf.scene, new THREE.HemisphereLight(0xffffff, 0xb0a898, 1.8));
	let mesh = null;
	gltf.scene.traverse((node) => { mesh = node.isMesh ? node : mesh; });
	const materials = makeMaterials(mesh.material);
	const bytes = inlinedBytes("gaussians");
	const splats = bytes.length ? makeSplats(bytes) : null;
	if (splats) scene.add(splats.object);
	element("splats").disabled = element("splats").hidden = !splats;
	showFacts(mesh, splats);

	const sphere = new THREE.Box3().setFromObject(gltf.scene).getBoundingSphere(new THREE.Sphere());
	const camera = new THREE.PerspectiveCamera(35, 1, sphere.radius / 50, sphere.radius * 50);
	camera.position.set(0.35, 0.3, 0.89).multiplyScalar(sphere.radius * 3.6).add(sphere.center); // the front faces +z
	const lamp = new THREE.DirectionalLight(0xffffff, 2.0);
	lamp.position.set(-1, 1.5, 1); // over the viewer's left shoulder
	camera.add(lamp);
	scene.add(camera);

	const controls = new THREE.OrbitControls(camera, renderer.domElement);
	controls.target.copy(sphere.center);
	controls.enableDamping = true;
	controls.autoRotateSpeed = 4;

	function applyLook() {
		const look = [pressed("textureless") && "textureless", pressed("unlit") && "unlit"].filter(Boolean).join("_") || "lit";
		mesh.material = materials[look];
		mesh.material.wireframe = pressed("wireframe");
		mesh.visible = !(splats && pressed("splats"));
		if (splats) splats.object.visible = !mesh.visible;
		for (const id of ["wireframe", "textureless", "unlit"]) element(id).disabled = !mesh.visible;
		controls.autoRotate = pressed("turntable");
	}

	function resize() {
		renderer.setSize(window.innerWidth, window.innerHeight);
		camera.aspect = window.innerWidth / window.innerHeight;
		camera.updateProjectionMatrix();
	}

	for (const button of document.querySelectorAll("nav button")) {
		button.addEventListener("click", () => {
			button.setAttribute("aria-pressed", String(!pressed(button.id)));
			applyLook();
		});
	}
	window.addEventListener("keydown", (event) => {
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		const button = [...document.querySelectorAll("nav button")].find((b) => b.title === event.key.toUpperCase());
		if (button) button.click();
	});
	window.addEventListener("resize", resize);
	if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) element("turntable").click();
	for (const id of window.location.hash.slice(1).split(",")) { // viewer.html#wireframe,unlit
		if (id && element(id)) element(id).click();
	}
	resize();
	applyLook();
	renderer.setAnimationLoop(() => {
		controls.update();
		if (splats) splats.sort(renderer, camera);
		renderer.render(scene, camera);
		if (document.body.dataset.state === "loading") report("ready", "");
	});
}

try {
	const bytes = inlinedBytes("model");
	element("download").href = URL.createObjectURL(new Blob([bytes], { type: "model/gltf-binary" }));
	new THREE.GLTFLoader().parse(bytes.buffer, "", (gltf) => {
		try {
			start(gltf);
		} catch (error) {
			report("failed", `This browser cannot show the mesh (${error.message}); the button below saves it.`);
		}
	}, (error) => report("failed", `The mesh cannot be read: ${error.message}`));
} catch (error) {
	report("failed", `The mesh cannot be read: ${error.message}`);
}
