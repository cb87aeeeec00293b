/* What the pages do for a reader beyond the theme: quizzes that check a number and count, and the glossary under the pointer.
   Without this file everything is still there: answers open, terms lead to the glossary. Nothing is fetched or sent. */
(() => {
  "use strict";

  /* --- quizzes (book/_ext/quiz.py) --- */

  function number(text) {
    const plain = text.trim().replace(/\u2212/g, "-").replace(",", ".");
    return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
  }

  function entry(form, first) {
    const question = form.closest(".quiz-question");
    const reasons = [...question.querySelectorAll(".quiz-solution > .quiz-because")];
    const said = form.querySelector(".quiz-said");
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const given = number(form.querySelector("input").value);
      if (Number.isNaN(given)) {
        said.textContent = "That is not a number. As in 0.25 or -3.";
        return;
      }
      const near = (reason) => Math.abs(given - Number(reason.dataset.value)) <= Number(reason.dataset.within) * 1.000001;
      const numbers = reasons.filter((reason) => reason.dataset.value !== undefined);
      const found = numbers.find(near) || reasons.find((reason) => reason.dataset.otherwise);
      const right = found === numbers[0];
      first(question, right);
      said.textContent = "";
      const sign = document.createElement("strong");
      sign.textContent = right ? "Right." : "Not yet.";
      said.append(sign, ...[...found.cloneNode(true).childNodes]);
    });
  }

  function quiz(box) {
    const tries = new Map(); // question -> whether the first answer was right
    const count = box.querySelector(".quiz-count");
    if (!count) return; // a page without answers
    const first = (question, right) => {
      if (tries.has(question)) return;
      tries.set(question, right);
      const good = [...tries.values()].filter(Boolean).length;
      count.textContent = `${good} of ${tries.size} right at the first try; ${box.dataset.count} questions.`;
    };
    box.querySelectorAll(".quiz-entry").forEach((form) => entry(form, first));
    box.querySelectorAll("details.quiz-choice").forEach((choice) => {
      choice.addEventListener("toggle", () => {
        if (choice.open) first(choice.closest(".quiz-question"), choice.dataset.right === "true");
      });
    });
    box.querySelectorAll("details.quiz-solution").forEach((answer) => {
      answer.addEventListener("toggle", () => {
        if (answer.open) first(answer.closest(".quiz-question"), false); // looked it up
      });
    });
  }

  /* --- the glossary under the pointer (book/_ext/reading.py) --- */

  function hints() {
    let shown = null; // [link, hint]
    let timer = 0;
    const known = new Set();

    const place = () => {
      if (!shown) return;
      const [link, hint] = shown;
      const at = link.getClientRects()[0];
      const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - hint.offsetWidth - 8));
      const above = at.top - hint.offsetHeight - 6;
      const below = at.bottom + 6;
      hint.style.left = `${left}px`;
      hint.style.top = `${below + hint.offsetHeight > window.innerHeight && above > 0 ? above : below}px`;
    };
    const hide = () => {
      clearTimeout(timer);
      if (shown) shown[1].hidden = true;
      shown = null;
    };
    const later = () => {
      clearTimeout(timer);
      timer = setTimeout(hide, 250); // time to move the pointer onto the hint
    };
    const show = (link, hint) => {
      hide();
      hint.hidden = false;
      shown = [link, hint];
      place();
    };

    document.querySelectorAll('a.reference[href*="#term-"]').forEach((link) => {
      const hint = document.getElementById("hint-" + decodeURIComponent(link.hash.slice(1)));
      if (!hint) return;
      if (!known.has(hint)) {
        known.add(hint);
        hint.addEventListener("pointerenter", () => clearTimeout(timer));
        hint.addEventListener("pointerleave", later);
      }
      link.setAttribute("aria-describedby", hint.id);
      link.classList.add("term");
      link.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && show(link, hint));
      link.addEventListener("pointerleave", later);
      link.addEventListener("focus", () => show(link, hint));
      link.addEventListener("blur", hide);
    });
    document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
    window.addEventListener("scroll", place, { passive: true, capture: true });
    window.addEventListener("resize", hide);
  }

  /* --- what opens says what it opens: the theme names an arrow of the contents not at all, and all folded code alike --- */

  function names() {
    document.querySelectorAll("li.has-children > details > summary:not([aria-label])").forEach((summary) => {
      const link = summary.closest("li").querySelector("a");
      if (link) summary.setAttribute("aria-label", "Pages of: " + link.textContent.trim());
    });
    document.querySelectorAll("details.hide > summary[aria-label]").forEach((summary) => summary.removeAttribute("aria-label"));
  }

  /* --- what scrolls by itself can be scrolled with the keyboard --- */

  function scrollers() {
    document.querySelectorAll("article div, article pre, article mjx-container").forEach((box) => {
      if (box.scrollWidth <= box.clientWidth + 1 || box.tabIndex >= 0) return;
      if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) box.tabIndex = 0;
    });
  }

  function start() {
    document.querySelectorAll(".quiz").forEach(quiz);
    hints();
    names();
  }

  window.addEventListener("load", scrollers);
  window.addEventListener("resize", scrollers);
  document.addEventListener("toggle", scrollers, true); // what was folded has no width before it is opened

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
