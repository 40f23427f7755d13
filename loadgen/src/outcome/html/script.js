document.querySelectorAll("figure").forEach(function (figure) {
  var svg = figure.querySelector("svg"), tip = figure.querySelector(".tip");
  if (!svg) { return; }
  var cursor = svg.querySelector(".cursor"), data = JSON.parse(svg.dataset.chart);
  function hide() { tip.classList.add("hidden"); cursor.classList.add("hidden"); }
  function move(event) {
    var box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    var best = 0;
    data[0].forEach(function (x, i) { if (Math.abs(data[0][best] - at) > Math.abs(x - at)) { best = i; } });
    var lines = data[2].map(function (line) { return line[0] + "  " + line[1][best]; });
    tip.textContent = [data[1][best]].concat(lines).join("\n");
    cursor.setAttribute("x1", data[0][best]);
    cursor.setAttribute("x2", data[0][best]);
    tip.classList.remove("hidden");
    cursor.classList.remove("hidden");
    var left = data[0][best] / svg.viewBox.baseVal.width * box.width, wide = tip.offsetWidth;
    tip.style.left = (left > box.width / 2 ? left - wide - 12 : left + 12) + "px";
  }
  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerleave", hide);
  var button = figure.querySelector(".switch");
  if (button) {
    button.addEventListener("click", function () {
      var log = svg.querySelector(".log"), linear = svg.querySelector(".linear");
      log.classList.toggle("hidden");
      linear.classList.toggle("hidden");
      button.textContent = (log.classList.contains("hidden") ? "logarithmic" : "linear") + " axis";
    });
  }
});
