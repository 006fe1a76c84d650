(() => {
  const root = document.currentScript.closest(".invertnb-explorer");
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const image = root.querySelector("img");
  const values = root.querySelector("dl");
  const inputs = [...root.querySelectorAll("[data-control]")];
  const pictures = [image.src, ...data.pictures.slice(1)];
  let current = -1;

  const position = (input) => {
    if (input.type === "range") return Number(input.value);
    if (input.tagName === "SELECT") return input.selectedIndex;
    return Number(input.querySelector(":checked").value);
  };

  const entry = (label, text) => {
    const [row, term, value] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = label;
    value.textContent = text;
    row.append(term, value);
    return row;
  };

  const show = () => {
    const at = inputs.map(position);
    const index = at.reduce((sum, here, axis) => sum * data.controls[axis].texts.length + here, 0);
    if (index === current) return;
    current = index;
    const frame = data.frames[index];
    const texts = at.map((here, axis) => data.controls[axis].texts[here]);
    inputs.forEach((input, axis) => {
      if (input.type !== "range") return;
      input.setAttribute("aria-valuetext", texts[axis]);
      input.parentElement.querySelector("output").textContent = texts[axis];
    });
    image.src = pictures[frame.picture];
    image.alt = frame.alt;
    [image.width, image.height] = frame.size;
    root.querySelector(".ix-point").textContent = data.controls
      .map((control, axis) => `${control.label}: ${texts[axis]}`)
      .join("; ");
    values.replaceChildren(...frame.shown.map(([label, text]) => entry(label, text)));
  };

  root.classList.add("ix-live");
  root.addEventListener("input", show);
  show();
})();
