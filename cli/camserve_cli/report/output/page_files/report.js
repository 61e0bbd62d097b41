"use strict";
// The gallery, the photos of the other sections, and the detail view. Only the cards in sight are in
// the document: so it stays quick with 10,000 photos.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const thumbnails = document.getElementById("thumbnails").textContent;
  const count = data.paths.length;
  const UNSURE = 0.1, LOW_DROP = 0.1, HIGH_DROP = 0.5;
  const form = document.querySelector(".controls");
  const cards = document.getElementById("cards");
  const dialog = document.getElementById("detail");

  const decode = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const maps = decode(data.maps);
  const comparedMaps = data.comparedMaps ? decode(data.comparedMaps) : null;
  const percent = (share) => share === null ? "–" : `${(100 * share).toFixed(1)}%`;
  const isWrong = (photo) => data.true[photo] >= 0 && data.true[photo] !== data.predicted[photo];

  // Heat of 0 to 255 -> red, green, blue, as OpenCV's JET.
  const jet = (value) => {
    const x = value / 255;
    const ramp = (middle) => Math.max(0, Math.min(1, 1.5 - Math.abs(4 * x - middle)));
    return [255 * ramp(3), 255 * ramp(2), 255 * ramp(1)];
  };

  const mapOf = (photo) => {
    const cells = data.shape[0] * data.shape[1];
    return { cells: maps.subarray(photo * cells, (photo + 1) * cells), shape: data.shape };
  };
  const comparedMapOf = (photo) => {
    const shape = data.comparedShape, cells = shape[0] * shape[1];
    return { cells: comparedMaps.subarray(photo * cells, (photo + 1) * cells), shape };
  };

  // Decoded thumbnails, the oldest dropped: 10,000 decoded ones would take half a gigabyte.
  const cache = new Map();
  const thumbnail = (photo) => {
    if (cache.has(photo)) return cache.get(photo);
    const begin = data.thumbnails[photo], end = data.thumbnails[photo + 1];
    const image = new Image();
    const ready = begin === end ? Promise.resolve(null) : new Promise((resolve) => {
      image.onload = () => resolve(image);
      image.onerror = () => resolve(null);
      image.src = `data:image/webp;base64,${thumbnails.slice(begin, end)}`;
    });
    cache.set(photo, ready);
    if (cache.size > 600) cache.delete(cache.keys().next().value);
    return ready;
  };

  // The places of a fine grid between a side's cells: [cell, next cell, share of the next]. Values,
  // not colours, are interpolated, with cells' centres as the known points.
  const FINE = 8;
  const between = (cells) => Array.from({ length: cells * FINE }, (_, index) => {
    const place = Math.max(0, Math.min(cells - 1, (index + 0.5) / FINE - 0.5));
    const cell = Math.floor(place);
    return [cell, Math.min(cell + 1, cells - 1), place - cell];
  });
  const COLOURS = Array.from({ length: 256 }, (_, value) => jet(value));
  const heatCanvas = ({ cells, shape: [rows, columns] }) => {
    const canvas = document.createElement("canvas");
    canvas.width = columns * FINE;
    canvas.height = rows * FINE;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(canvas.width, canvas.height), across = between(columns);
    let at = 0;
    for (const [top, bottom, down] of between(rows)) {
      for (const [left, right, share] of across) {
        const above = cells[top * columns + left] * (1 - share) + cells[top * columns + right] * share;
        const below = cells[bottom * columns + left] * (1 - share)
          + cells[bottom * columns + right] * share;
        const [red, green, blue] = COLOURS[Math.round(above * (1 - down) + below * down)];
        pixels.data[at] = red;
        pixels.data[at + 1] = green;
        pixels.data[at + 2] = blue;
        pixels.data[at + 3] = 255;
        at += 4;
      }
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  };

  const draw = async (canvas, photo, map) => {
    canvas.dataset.drawn = photo;
    const image = await thumbnail(photo);
    // It may show another photo by now.
    if (canvas.dataset.drawn !== String(photo)) return;
    const context = canvas.getContext("2d"), { width, height } = canvas;
    context.globalAlpha = 1;
    context.clearRect(0, 0, width, height);
    const sides = image ? [image.naturalWidth, image.naturalHeight] : [width, height];
    const scale = Math.min(width / sides[0], height / sides[1]);
    const w = sides[0] * scale, h = sides[1] * scale, x = (width - w) / 2, y = (height - h) / 2;
    context.save();
    context.beginPath();
    context.rect(x, y, w, h);
    context.clip();
    if (image) context.drawImage(image, x, y, w, h);
    const [x0, y0, x1, y1] = data.inputBox.slice(4 * photo, 4 * photo + 4);
    const alpha = Number(form.elements.alpha.value) / 100;
    if (map.cells.some((value) => value > 0)) {
      context.globalAlpha = alpha;
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      context.drawImage(heatCanvas(map), x + x0 * w, y + y0 * h, (x1 - x0) * w, (y1 - y0) * h);
    }
    context.restore();
  };

  const describe = (photo) => {
    const truth = data.true[photo] < 0 ? "" : isWrong(photo)
      ? `, wrong: it shows ${data.classes[data.true[photo]]}` : ", right";
    return `${data.paths[photo]}: ${data.classes[data.predicted[photo]]} `
      + `${percent(data.probability[photo])}${truth}`;
  };

  // The photos of the other sections, drawn when they come into sight.
  const given = (shot) => shot.dataset.map
    ? { cells: decode(shot.dataset.map), shape: data.shape } : mapOf(Number(shot.dataset.photo));
  const drawShot = (shot) =>
    draw(shot.querySelector("canvas"), Number(shot.dataset.photo), given(shot));
  const shots = [...document.querySelectorAll(".shot")];
  const inSight = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      inSight.unobserve(entry.target);
      drawShot(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const shot of shots) {
    const photo = Number(shot.dataset.photo);
    shot.setAttribute("aria-label", describe(photo)
      + (shot.querySelector("span") ? `; ${shot.querySelector("span").textContent}` : ""));
    shot.title = data.paths[photo];
    shot.addEventListener("click", () => {
      const beside = [...shot.closest("section").querySelectorAll(".shot")]
        .map((one) => Number(one.dataset.photo));
      open(photo, [...new Set(beside)], shot);
    });
    inSight.observe(shot);
  }

  // The gallery.
  const filters = {
    all: () => true,
    wrong: isWrong,
    unsure: (photo) => data.margin[photo] !== null && data.margin[photo] < UNSURE,
    no_evidence: (photo) => !data.evidence[photo],
    outside: (photo) => data.outside[photo] === 1,
    low_drop: (photo) => data.drop[photo] !== null && data.drop[photo] < LOW_DROP,
    high_drop: (photo) => data.drop[photo] !== null && data.drop[photo] > HIGH_DROP,
    changed: (photo) => data.compared[photo] >= 0 && data.compared[photo] !== data.predicted[photo],
    regressions: (photo) => data.true[photo] >= 0 && !isWrong(photo)
      && data.compared[photo] >= 0 && data.compared[photo] !== data.true[photo],
  };
  const ascending = new Set(["margin", "mass", "drop"]);
  let order = [], columns = 1, cardWidth = 170, first = 0;
  const CAPTION = 62, GAP = 10, WISHED = 168;
  const shown = new Map();

  const select = () => {
    const { show, sort, text } = form.elements;
    const wanted = form.elements.class.value, cluster = form.elements.cluster.value;
    const part = text.value.trim().toLowerCase();
    order = [];
    for (let photo = 0; photo < count; photo += 1) {
      if (!filters[show.value](photo)) continue;
      if (wanted !== "" && data.predicted[photo] !== Number(wanted)
        && (cluster !== "" || data.true[photo] !== Number(wanted))) continue;
      if (cluster !== "" && data.cluster[photo] !== Number(cluster)) continue;
      if (part && !data.paths[photo].toLowerCase().includes(part)) continue;
      order.push(photo);
    }
    if (sort.value !== "path") {
      const values = data[sort.value], sign = ascending.has(sort.value) ? 1 : -1;
      const rank = (photo) => values[photo] === null ? Infinity : sign * values[photo];
      // Photos without the figure come last.
      order.sort((a, b) => (rank(a) === rank(b) ? a - b : rank(a) - rank(b)));
    }
    form.querySelector("output").textContent =
      `${order.length.toLocaleString("en")} of ${count.toLocaleString("en")} photos`;
    first = 0;
    for (const card of shown.values()) card.parentNode.remove();
    shown.clear();
    lay();
  };

  const rowHeight = () => cardWidth + CAPTION + GAP;
  const lay = () => {
    const width = cards.clientWidth;
    columns = Math.max(1, Math.floor((width + GAP) / (WISHED + GAP)));
    cardWidth = Math.floor((width - GAP * (columns - 1)) / columns);
    cards.style.height = `${Math.ceil(order.length / columns) * rowHeight()}px`;
    scrolled();
  };

  const fill = (card, place) => {
    const photo = order[place];
    card.className = isWrong(photo) ? "card wrong" : "card";
    card.dataset.place = place;
    card.setAttribute("aria-label", describe(photo));
    card.parentNode.setAttribute("aria-posinset", place + 1);
    card.parentNode.setAttribute("aria-setsize", order.length);
    card.tabIndex = place === first ? 0 : -1;
    const [canvas, name, predicted, truth] = card.children;
    const side = Math.min(2 * cardWidth, 336);
    if (canvas.width !== side) canvas.width = canvas.height = side;
    name.textContent = data.paths[photo].split("/").pop();
    card.title = data.paths[photo];
    predicted.textContent = `${data.classes[data.predicted[photo]]} ${percent(data.probability[photo])}`;
    truth.textContent = !data.evidence[photo] ? "no evidence"
      : isWrong(photo) ? `is ${data.classes[data.true[photo]]}` : data.true[photo] < 0 ? "" : "right";
    draw(canvas, photo, mapOf(photo));
  };

  const makeCard = () => {
    const item = document.createElement("div"), card = document.createElement("button");
    item.setAttribute("role", "listitem");
    card.type = "button";
    card.append(document.createElement("canvas"));
    for (const name of ["name", "predicted", "truth"]) {
      const span = document.createElement("span");
      span.className = name;
      card.append(span);
    }
    item.append(card);
    return card;
  };

  const scrolled = () => {
    const top = -cards.getBoundingClientRect().top, height = rowHeight();
    const begin = Math.max(0, Math.floor(top / height) - 1) * columns;
    const end = Math.min(order.length, (Math.ceil((top + innerHeight) / height) + 1) * columns);
    const spare = [];
    for (const [place, card] of shown) {
      // The card with the focus stays, so that the keyboard does not lose its place.
      if ((place < begin || place >= end) && card !== document.activeElement) {
        shown.delete(place);
        spare.push(card);
      }
    }
    for (let place = begin; place < end; place += 1) {
      let card = shown.get(place);
      if (!card) {
        card = spare.pop() || makeCard();
        if (!card.parentNode.isConnected) cards.append(card.parentNode);
        shown.set(place, card);
        fill(card, place);
      }
      card.style.width = `${cardWidth}px`;
      card.style.height = `${cardWidth + CAPTION}px`;
      card.children[0].style.height = `${cardWidth - 2}px`;
      card.style.left = `${(place % columns) * (cardWidth + GAP)}px`;
      card.style.top = `${Math.floor(place / columns) * height}px`;
    }
    for (const card of spare) card.parentNode.remove();
  };

  const focusOn = (place) => {
    const before = shown.get(first);
    first = Math.max(0, Math.min(order.length - 1, place));
    if (before) before.tabIndex = -1;
    const top = Math.floor(first / columns) * rowHeight() + cards.getBoundingClientRect().top;
    if (top < 90) scrollBy({ top: top - 90, behavior: "instant" });
    if (top + rowHeight() > innerHeight) scrollBy({ top: top + rowHeight() - innerHeight, behavior: "instant" });
    scrolled();
    const card = shown.get(first);
    if (!card) return;
    card.tabIndex = 0;
    card.focus({ preventScroll: true });
  };

  cards.addEventListener("keydown", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns,
      PageDown: 4 * columns, PageUp: -4 * columns, Home: -order.length, End: order.length,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    focusOn(Number(card.dataset.place) + steps[event.key]);
  });
  cards.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    if (card) open(order[Number(card.dataset.place)], order, card);
  });

  // The detail view.
  let list = [], current = 0, opener = null;
  const open = (photo, photos, from) => {
    list = photos;
    opener = from;
    show(photos.indexOf(photo));
    if (!dialog.open) dialog.showModal();
  };
  const picture = (photo, map, caption) => {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const text = document.createElement("figcaption");
    canvas.width = canvas.height = 528;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", caption);
    text.textContent = caption;
    figure.append(canvas, text);
    draw(canvas, photo, map);
    return figure;
  };
  const table = (title, rows) => {
    const element = document.createElement("table");
    element.createCaption().textContent = title;
    for (const [name, value] of rows) {
      const row = element.insertRow(), head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      row.append(head);
      row.insertCell().textContent = value;
    }
    return element;
  };
  const show = (place) => {
    current = (place + list.length) % list.length;
    const photo = list[current];
    document.getElementById("detail-title").textContent = data.paths[photo];
    const predicted = data.classes[data.predicted[photo]];
    const pictures = [picture(photo, { cells: new Uint8Array(0), shape: data.shape }, "the photo")];
    pictures.push(picture(photo, mapOf(photo), data.evidence[photo]
      ? `predicted: ${predicted}` : `predicted: ${predicted}, no evidence`));
    if (data.trueMaps[photo]) {
      const map = { cells: decode(data.trueMaps[photo]), shape: data.shape };
      pictures.push(picture(photo, map, `true: ${data.classes[data.true[photo]]}`));
    }
    if (comparedMaps && data.compared[photo] >= 0) {
      pictures.push(picture(photo, comparedMapOf(photo),
        `the other model: ${data.classes[data.compared[photo]]}`));
    }
    dialog.querySelector(".maps").replaceChildren(...pictures);
    const best = [];
    for (let index = 0; index < data.top[photo].length; index += 2) {
      best.push([data.classes[data.top[photo][index]], percent(data.top[photo][index + 1])]);
    }
    const figures = [["margin to the second", percent(data.margin[photo])],
      ["heat in the border", percent(data.border[photo])],
      ["heat in the corners", percent(data.corners[photo])]];
    const truth = data.trueAll ? data.trueAll[photo] : data.true[photo] < 0 ? [] : [data.true[photo]];
    if (truth.length) figures.unshift(["shows", truth.map((index) => data.classes[index]).join(", ")]);
    if (data.mass && data.mass[photo] !== null) figures.push(["heat on the object", percent(data.mass[photo])]);
    if (data.drop && data.drop[photo] !== null) figures.push(["drop", percent(data.drop[photo])]);
    if (data.cluster[photo] >= 0) figures.push(["cluster", data.cluster[photo] + 1]);
    if (data.distance && data.distance[photo] !== null) figures.push(["distance of both maps", data.distance[photo]]);
    const properties = Object.entries(data.properties)
      .filter(([, values]) => values[photo] !== null)
      .map(([name, values]) => [name.replace("_", " "), values[photo].toLocaleString("en")]);
    if (data.camera[photo] >= 0) properties.push(["camera", data.cameras[data.camera[photo]]]);
    dialog.querySelector(".numbers").replaceChildren(
      table("Predictions", best), table("Figures", figures), table("Properties", properties));
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") show(current + 1);
    if (event.key === "ArrowLeft") show(current - 1);
  });
  dialog.querySelector("[name=previous]").addEventListener("click", () => show(current - 1));
  dialog.querySelector("[name=next]").addEventListener("click", () => show(current + 1));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { if (opener && opener.isConnected) opener.focus(); });

  // The choices of the form.
  const occurring = [...new Set([...data.predicted, ...data.true])].filter((index) => index >= 0);
  occurring.sort((a, b) => data.classes[a].localeCompare(data.classes[b]));
  for (const index of occurring) form.elements.class.add(new Option(data.classes[index], index));
  const offerClusters = () => {
    const { cluster } = form.elements, wanted = form.elements.class.value;
    while (cluster.length > 1) cluster.remove(1);
    const found = new Set();
    for (let photo = 0; photo < count; photo += 1) {
      if (wanted !== "" && data.predicted[photo] === Number(wanted) && data.cluster[photo] >= 0) {
        found.add(data.cluster[photo]);
      }
    }
    for (const number of [...found].sort((a, b) => a - b)) {
      cluster.add(new Option(`cluster ${number + 1}`, number));
    }
    cluster.disabled = found.size === 0;
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "alpha") {
      for (const card of shown.values()) {
        const photo = order[Number(card.dataset.place)];
        draw(card.children[0], photo, mapOf(photo));
      }
      for (const shot of shots) if (shot.querySelector("canvas").dataset.drawn) drawShot(shot);
      return;
    }
    if (event.target.name === "class") offerClusters();
    select();
    if (cards.getBoundingClientRect().top < 0) {
      document.getElementById("gallery").scrollIntoView({ behavior: "instant" });
    }
  });
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; scrolled(); });
  }, { passive: true });
  addEventListener("resize", lay);
  select();
})();
