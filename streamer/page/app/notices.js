// What the person has to be told, until they dismiss it.

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
    const notice = document.createElement("div");
    notice.className = isBad ? "notice bad" : "notice";
    notice.dataset.key = key;
    const said = document.createElement("p");
    said.textContent = text;
    const dismiss = document.createElement("button");
    dismiss.type = "button";
    dismiss.textContent = t("dismiss");
    dismiss.onclick = () => notice.remove();
    notice.append(said, dismiss);
    this.#element.append(notice);
    while (this.#element.children.length > MOST) this.#element.firstChild.remove();
  }

  clear() {
    this.#element.replaceChildren();
  }
}
