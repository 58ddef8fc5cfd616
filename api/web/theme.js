// Before the first paint: the theme that was chosen, else the system's.
try {
  const chosen = localStorage.getItem("spnode-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing keeps no theme.
}
