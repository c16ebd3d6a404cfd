// Elements in one go.

/** @param {string} tag @param {object} settings Properties of it. @param {...(Node | string)} inside */
export function make(tag, settings, ...inside) {
  const element = Object.assign(document.createElement(tag), settings);
  element.append(...inside);
  return element;
}
