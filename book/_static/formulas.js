// Set the formulas of a page with KaTeX, which lies beside this file; Sphinx asks for it only where there are formulas.
(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, "katex/");
  const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: here + "katex.min.css" });
  const program = Object.assign(document.createElement("script"), { src: here + "katex.min.js" });
  program.onload = () => {
    for (const each of document.querySelectorAll(".math")) {
      const formula = each.textContent.trim().replace(/^\\[([]|\\[)\]]$/g, "");
      katex.render(formula, each, { displayMode: each.matches("div"), throwOnError: false });
    }
    document.documentElement.dataset.formulas = "set";
  };
  document.head.append(style, program);
})();
