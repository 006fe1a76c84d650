(() => {
  const root = document.currentScript.closest(".invertnb-explorer");
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const images = [...root.querySelectorAll("img")];
  const values = root.querySelector("dl");
  const inputs = [...root.querySelectorAll("[data-control]")];
  const pictures = [...data.pictures];
  data.start.forEach((picture, part) => (pictures[picture] = images[part].src));
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
    images.forEach((image, part) => {
      image.src = pictures[frame.pictures[part]];
      [image.width, image.height] = frame.size;
    });
    images[0].alt = frame.alt;
    root.querySelector(".ix-point").textContent = data.controls
      .map((control, axis) => `${control.label}: ${texts[axis]}`)
      .join("; ");
    values.replaceChildren(...frame.shown.map(([label, text]) => entry(label, text)));
  };

  root.classList.add("ix-live");
  root.addEventListener("input", show);
  show();
})();
