// Picks a variant by limits that the reader sets. All numbers and their texts are those of the tables.
(() => {
  const { ranked: comparable, variants, devices, profiles } = JSON.parse(document.getElementById("tables").textContent).choices;
  const [memory, device, time, unit, loss, goal, out] = ["memory", "device", "time", "unit", "loss", "goal"]
    .map((id) => document.getElementById(`pick-${id}`)).concat(document.getElementById("picked"));
  if (!variants.some((one) => !one.base)) return;
  const BYTES = "bytes a token";
  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const has = (what) => variants.some(what);
  const changes = has((one) => one.change);
  const scale = () => (device.value === BYTES ? 1e6 : 1);

  // One quantity of a variant to hold against a limit: null where the record has none.
  const of = {
    memory: (one) => one.memory && one.memory[0],
    time: (one) => (one.times[device.value] ? one.times[device.value][0] : null),
    loss: (one) => (one.base ? 0 : one.change && -one.change[0]),
    accuracy: (one) => one.accuracy && one.accuracy[0],
    density: (one) => (one.density && !one.density[4] ? one.density[0] : null),  // a bound has no place in a ranking
  };
  const goals = {
    memory: (one) => of.memory(one), time: (one) => of.time(one),
    accuracy: (one) => (of.accuracy(one) === null ? null : -of.accuracy(one)), density: (one) => (of.density(one) === null ? null : -of.density(one)),
  };
  const limit = (input, factor) => (input.disabled || input.value === "" || !(Number(input.value) >= 0) ? null : Number(input.value) * factor);

  // How sure the loss of a variant is.
  function surety(one, most) {
    if (one.base) return "the base itself";
    if (!one.change) return "";
    const [value, low, high] = one.change;
    if (low <= 0 && high >= 0) return "not told apart from the base in accuracy";
    if (most !== null && -low > most && -value <= most) return "its interval reaches beyond the limit";
    return value < 0 ? "less accurate than the base" : "more accurate than the base";
  }
  const overlap = (one, other) => one.change && other.change && one.change[1] <= other.change[2] && other.change[1] <= one.change[2];

  function pick() {
    const limits = [["memory", limit(memory, 1e9), "memory at inference"], ["time", limit(time, scale()), device.value], ["loss", limit(loss, 0.01), "a loss of accuracy"]]
      .filter(([, most]) => most !== null);
    if (goal.value === "time" && !limits.some(([name]) => name === "time")) limits.push(["time", Infinity, device.value]);
    const said = [];
    let left = variants;
    for (const [name, , words] of limits) {
      const without = left.filter((one) => of[name](one) === null);
      if (without.length) said.push(`Left out, because the record has no ${words} for them: ${without.map((one) => one.name).join(", ")}.`);
      left = left.filter((one) => of[name](one) !== null);
    }
    const fits = left.filter((one) => limits.every(([name, most]) => of[name](one) <= most));
    // The limit of loss is held against the value. Where the interval reaches to its other side, the record does not decide.
    const most = limits.find(([name]) => name === "loss")?.[1] ?? null;
    const near = most === null ? [] : left.filter((one) => of.loss(one) > most && one.change && -one.change[2] <= most
      && limits.every(([name, bound]) => name === "loss" || of[name](one) <= bound));
    const ranked = fits.filter((one) => goals[goal.value](one) !== null)
      .sort((one, other) => goals[goal.value](one) - goals[goal.value](other) || (of.memory(one) ?? 0) - (of.memory(other) ?? 0));
    const unranked = fits.filter((one) => goals[goal.value](one) === null);
    const [best, second] = ranked;
    out.replaceChildren();
    if (!best) {
      const tight = limits.map(([name, most, words]) => `${left.filter((one) => of[name](one) <= most).length} of ${variants.length} keep to ${words}`);
      out.append(element("p", fits.length ? `The record has nothing to rank them by: ${goal.selectedOptions[0].text}.` : `No variant fits. ${tight.join("; ")}.`, { class: "picked" }));
    } else {
      const head = element("p", undefined, { class: "picked" });
      head.append(element("strong", best.name), ` ${best.base ? "(the base)" : `(${best.chain})`}${second ? ", then " : ": nothing else fits."}`);
      if (second) head.append(element("strong", second.name), ".");
      out.append(head, table(second ? [best, second] : [best], most));
      if (second && overlap(best, second)) said.push(`${best.name} and ${second.name} are not told apart in accuracy: their intervals overlap.`);
      said.push(`${fits.length} of ${variants.length} fit.`);
      if (unranked.length) said.push(`Not ranked, because the record has no value to rank them by, or only a bound of it: ${unranked.map((one) => one.name).join(", ")}.`);
    }
    if (near.length) said.push(`Not told apart from the limit of loss, and left out by their value: ${near.map((one) => `${one.name} (${one.change[3]})`).join(", ")}.`);
    for (const sentence of said) out.append(element("p", sentence, { class: "small" }));
  }

  // The two picked with what they cost, beside their base.
  function table(picked, most) {
    const base = variants.find((one) => one.base && one.name === picked[0].root);
    const columns = base && !picked.includes(base) ? [...picked, base] : picked;
    const rows = [
      ["Memory at inference", (one) => one.memory && one.memory[1]],
      [device.value === BYTES || !device.value ? "Bytes a token" : `Time, ${device.value}`, (one) => one.times[device.value] && one.times[device.value][1]],
      ["Accuracy", (one) => one.accuracy && one.accuracy[1]],
      ["Accuracy against the base", (one) => (one.base ? null : one.change && one.change[3]), (one) => (one.change ? surety(one, most) : "")],
      ["Bits per byte", (one) => one.bpb && one.bpb[1]],
      ["Density by parameters", (one) => one.density && one.density[3]],
      ["Stored", (one) => one.stored && one.stored[1]],
      ["Its last step took", (one) => one.seconds && one.seconds[1]],
    ].filter(([, text]) => columns.some(text));
    const made = element("table"), top = element("tr"), body = element("tbody"), scroll = element("div", undefined, { class: "scroll", tabindex: "0", role: "region", "aria-label": "The picked variants" });
    top.append(element("th", "Quantity", { scope: "col", class: "left" }));
    columns.forEach((one) => top.append(element("th", one === picked[0] ? `best: ${one.name}` : one === picked[1] ? `runner-up: ${one.name}` : `base: ${one.name}`, { scope: "col" })));
    for (const [title, text, note] of rows) {
      const row = element("tr");
      row.append(element("th", title, { scope: "row" }));
      for (const one of columns) {
        const cell = element("td", text(one) || "–");
        if (note && note(one)) cell.append(element("small", note(one)));
        row.append(cell);
      }
      body.append(row);
    }
    const head = element("thead");
    head.append(top);
    made.append(head, body);
    scroll.append(made);
    return scroll;
  }

  // Without data for a limit its field says so.
  function without(input, there, why) {
    if (there) return;
    input.disabled = true;
    input.value = "";
    input.closest("label").append(element("small", why));
  }
  for (const name of devices) device.append(element("option", name, { value: name }));
  without(memory, has((one) => one.memory), "the record has no memory");
  without(device, devices.length, "the record has no times");
  without(time, devices.length, "");
  without(loss, changes, "the record has no accuracy against the base");
  for (const option of goal.options) if (!has((one) => goals[option.value](one) !== null) && option.value !== "time") option.disabled = true;
  // Densities and accuracies of different benchmarks do not rank.
  if (!comparable) for (const name of ["accuracy", "density"]) goal.querySelector(`[value=${name}]`).disabled = true;
  if (!devices.length) goal.querySelector("[value=time]").disabled = true;
  goal.value = [...goal.options].find((option) => !option.disabled)?.value ?? "memory";
  const note = element("small", "", { id: "pick-note" });
  const buttons = profiles.map((profile) => {
    const button = element("button", profile.name, { type: "button", "aria-pressed": "false" });
    button.addEventListener("click", () => {
      if (!memory.disabled) memory.value = profile.gigabytes;
      if (profile.device) device.value = profile.device;
      time.value = "";
      note.textContent = profile.device ? `${profile.gigabytes} GB, time on ${profile.device}`
        : `${profile.gigabytes} GB; the record has no time on ${profile.devices.join(" or ")} (density.hardware adds one)`;
      changed();
      button.setAttribute("aria-pressed", "true");
    });
    return button;
  });
  document.querySelector(".profiles").append(...buttons, note);
  function changed() {
    for (const button of buttons) button.setAttribute("aria-pressed", "false");
    unit.textContent = device.value === BYTES ? "MB" : "s";
    pick();
  }
  const form = document.getElementById("picker");
  form.addEventListener("input", (event) => {
    note.textContent = "";
    if (event.target === device) time.value = "";
    changed();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("picking").hidden = false;
  for (const link of document.querySelectorAll('a[href="#pick"]')) link.hidden = false;
  changed();
})();
