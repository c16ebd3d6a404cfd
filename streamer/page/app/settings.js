// How captions are shown: kept in the browser, overruled by the address.

const KEY = "cnerta-display";
const DEFAULTS = {
  language: "",
  size: "m",
  theme: "auto",
  density: "1",
  first: false,
  tentative: true,
  contrast: false,
  calm: false,
  sound: true,
  obs: false,
};

/** @typedef {typeof DEFAULTS} Settings */

export function loadSettings(query) {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    // Storage may be forbidden, or hold what an older page wrote.
  }
  const settings = { ...DEFAULTS };
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const asked = query.get(name === "language" ? "lang" : name);
    if (asked !== null) settings[name] = typeof usual === "boolean" ? asked !== "0" : asked;
    else if (typeof kept[name] === typeof usual) settings[name] = kept[name];
  }
  return settings;
}

export function keepSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // Then they hold until the page is closed.
  }
}

/** Put them on the document, where the style sheet finds them. */
export function applySettings(settings) {
  const { dataset } = document.documentElement;
  const isLight = matchMedia("(prefers-color-scheme: light)").matches;
  dataset.theme = settings.theme === "auto" ? (isLight ? "light" : "dark") : settings.theme;
  dataset.size = settings.size;
  dataset.contrast = settings.contrast ? "on" : "off";
  dataset.calm = settings.calm ? "on" : "off";
}
