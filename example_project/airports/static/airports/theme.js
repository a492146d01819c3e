/* Light, dark, or as the system says. Shares its memory with the admin. */
"use strict";
{
  const order = ["auto", "light", "dark"];
  const root = document.documentElement;

  const stored = () => {
    try {
      const theme = localStorage.getItem("theme");
      return order.includes(theme) ? theme : "auto";
    } catch {
      return "auto"; // storage may be forbidden
    }
  };

  const apply = (theme) => {
    root.dataset.theme = theme;
    for (const name of document.querySelectorAll("[data-theme-name]")) {
      name.textContent = theme;
    }
  };

  apply(stored());
  document.addEventListener("DOMContentLoaded", () => {
    apply(stored());
    for (const button of document.querySelectorAll("[data-theme-switch]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        const next = order[(order.indexOf(root.dataset.theme) + 1) % order.length];
        try {
          localStorage.setItem("theme", next);
        } catch {
          // The choice then lasts for this page.
        }
        apply(next);
      });
    }
  });
}
