// The divider: `--at` is its position, in per cent of the picture's width.
for (const view of document.querySelectorAll(".view")) {
  const range = view.querySelector("input");
  const moveTo = (at) => {
    view.style.setProperty("--at", `${Math.min(Math.max(at, 0), 100)}%`);
    range.value = at;
  };
  const follow = (event) => {
    const box = view.getBoundingClientRect();
    moveTo((100 * (event.clientX - box.left)) / box.width);
  };
  view.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    view.setPointerCapture(event.pointerId);
    if (event.pointerType === "mouse") follow(event); // a touch may become a scroll: wait for the click
  });
  view.addEventListener("pointermove", (event) => view.hasPointerCapture(event.pointerId) && follow(event));
  view.addEventListener("click", follow);
  range.addEventListener("input", () => moveTo(range.value));
}

// The buttons: data-left and data-right name the picture to show on that side, in the button's scene or in all scenes.
// A scene that lacks one of these pictures stays as it is.
function show(scene, wanted) {
  const shown = (side) => scene.querySelector(`img.${side}`);
  const buttons = (side) => [...scene.querySelectorAll(`button[data-${side}]`)];
  if (!Object.values(wanted).every((name) => scene.querySelector(`[data-picture="${CSS.escape(name)}"]`))) return;
  const chosen = { left: shown("left").dataset.picture, right: shown("right").dataset.picture, ...wanted };
  if (chosen.left === chosen.right) {
    // A picture beside itself compares nothing: the side that the button does not name gets another picture.
    const other = "left" in wanted ? "right" : "left";
    chosen[other] = buttons(other).map((button) => button.dataset[other]).find((name) => name !== chosen[other]);
  }
  for (const side of ["left", "right"]) {
    for (const img of scene.querySelectorAll("img")) img.classList.toggle(side, img.dataset.picture === chosen[side]);
    for (const button of buttons(side)) button.setAttribute("aria-pressed", button.dataset[side] === chosen[side]);
    scene.querySelector(`.label.${side}`).firstChild.textContent = shown(side).dataset.label;
  }
}

for (const button of document.querySelectorAll("button")) {
  const scenes = button.closest(".scene") ? [button.closest(".scene")] : document.querySelectorAll(".scene");
  button.addEventListener("click", () => scenes.forEach((scene) => show(scene, button.dataset)));
}
