// What the person has to be told, until they dismiss it.

import { make } from "./dom.js";
import { t } from "./text.js";

const MOST = 4;

export class Notices {
  #element;

  constructor(element) {
    this.#element = element;
  }

  tell(key, values = {}, isBad = false) {
    const text = t(key, values);
    for (const old of this.#element.children) if (old.dataset.key === key) old.remove();
    const notice = make("div", { className: isBad ? "notice bad" : "notice" },
      make("p", {}, text),
      make("button", { type: "button", onclick: () => notice.remove() }, t("dismiss")));
    notice.dataset.key = key;
    this.#element.append(notice);
    while (this.#element.children.length > MOST) this.#element.firstChild.remove();
  }

  clear() {
    this.#element.replaceChildren();
  }
}
