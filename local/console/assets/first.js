// What the first paint needs, and what it does not wait for. This script is in the page itself.
(() => {
  const load = () => document.head.append(document.getElementById("later").content);
  // Where nobody looks, nothing is painted.
  addEventListener("DOMContentLoaded", () => (document.hidden ? load() : requestAnimationFrame(() => setTimeout(load))));
  // The theme that was chosen here, or the system's.
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
