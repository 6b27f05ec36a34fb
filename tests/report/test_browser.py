"""The page in a real browser: nothing asked for, nothing complained about, pictures there, no overflow on a phone."""

from pathlib import Path
from typing import Any

import pytest

from stillhouse.report import write_report

from .browser import CHROMIUM, Page

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the path: the report is not looked at in a browser"
)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_the_report_opens_offline_and_fits(run_folder: Path, width: int, dark: bool) -> None:
    path = write_report(run_folder)
    with Page(path, width=width, dark=dark) as page:
        assert page.value("document.documentElement.scrollWidth") <= width, "no sideways scrolling of the page"
        assert page.value("document.querySelector('.verdict').dataset.answer") == "Yes"
        assert page.value("document.scripts.length") == 0
        assert page.value("document.images.length") == 0
        assert page.value("document.querySelectorAll('.flow').length") == 3
        assert page.value("document.querySelectorAll('.losses polyline.mean').length") == 3
        assert page.value("document.querySelectorAll('.losses polyline.one[data-seed]').length") == 6
        assert page.value("document.querySelectorAll('article.question').length") == 10
        marks = page.value(
            "[...document.querySelectorAll('.intervals .mark')].map(m => [m.dataset.arm, m.dataset.mean])"
        )
        assert ["beliefs", "0.5"] in marks
        assert ["beliefs − text", "0.08"] in marks
        dot, lower = (page.value(_place(name)) for name in ("beliefs", "text"))
        assert dot > lower, "the better arm lies further right"
        assert page.value("getComputedStyle(document.body).backgroundColor") == (
            "rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)"
        )
        assert _low_contrast(page) == []
    assert page.requests == [path.as_uri()]
    assert page.complaints == []


def _place(arm: str) -> str:
    return f"document.querySelector('.mark[data-arm=\"{arm}\"] .dot').getBoundingClientRect().x"


def _low_contrast(page: Any) -> list[Any]:
    """Text whose colour differs too little from the page's (WCAG 2, level AA: 4.5 to 1)."""
    return page.value("""
      (() => {
        const light = rgb => {
          const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
          const [r, g, b] = rgb.match(/[\\d.]+/g).map(v => linear(v / 255));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const paper = light(getComputedStyle(document.body).backgroundColor);
        const ratio = c => (Math.max(light(c), paper) + 0.05) / (Math.min(light(c), paper) + 0.05);
        return [...document.querySelectorAll('p, td, th, dt, dd, figcaption, a:not(.skip), .plot text')].map(e =>
          [e.tagName, e.getAttribute('class'), e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color]
        ).filter(([, , colour]) => ratio(colour) < 4.5);
      })()
    """)
