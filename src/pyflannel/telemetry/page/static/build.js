// Elements, made and kept.
//
// Rules of this file
//   1. Of what was told nothing is made but text: a string becomes a text node, and never HTML.
//   2. What is drawn stays and is altered, so that whoever reads, selects or has the focus there is not disturbed.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // a string becomes a text node
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const icon = (name) => svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
export const text = (node, said) => { if (node.textContent !== said) node.textContent = said; };
export const attribute = (node, name, value) => { if (node.getAttribute(name) !== value) node.setAttribute(name, value); };

const drawn = new WeakMap();

// Have in `parent` one child for each of `items`, in their order; a child stays with its item, whatever it moves past.
export function keyed(parent, items, name, make, update) {
  if (!drawn.has(parent)) drawn.set(parent, new Map());
  const known = drawn.get(parent);
  const wanted = new Set(items.map(name));
  for (const [key, node] of known) if (!wanted.has(key)) { node.remove(); known.delete(key); }
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = name(item);
    if (!known.has(key)) known.set(key, make(item));
    const node = known.get(key);
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
}

export const shown = new WeakMap(); // what a node was last drawn from
