"""The page in a real browser: photos are dropped, pasted and chosen, and their labels are read."""

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_server_run import png, running

from keras_effnet.http_server.settings import Settings

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
if os.environ.get("KERAS_EFFNET_REQUIRE_BROWSER"):
    from selenium import webdriver
else:
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    if not CHROMIUM or not DRIVER:
        pytest.skip("Chromium with chromedriver is not installed", allow_module_level=True)

TAB, ENTER = "\ue004", "\ue007"  # as WebDriver spells them
KEY = "0123456789abcdef"
# Puts a file into an event, as dropping and pasting do.
CARRY = """
const [kind, base64] = arguments, data = new DataTransfer();
const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
data.items.add(new File([bytes], "carried.png", { type: "image/png" }));
const event = kind === "paste"
  ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
  : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
document.body.dispatchEvent(event);
return event.defaultPrevented;
"""


@pytest.fixture(scope="module")
def browsers() -> Iterator[Callable[..., Any]]:
    """Start browsers of a width; 400 pixels is a phone."""
    started = {}

    def start(width: int) -> Any:
        if width not in started:
            options = webdriver.ChromeOptions()
            options.binary_location = CHROMIUM
            for argument in ("headless=new", "no-sandbox", "disable-gpu", f"window-size={width},900"):
                options.add_argument(f"--{argument}")
            if width < 500:
                phone = {"deviceMetrics": {"width": width, "height": 800, "pixelRatio": 2.0, "touch": True}}
                options.add_experimental_option("mobileEmulation", phone)
            options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
            started[width] = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        return started[width]

    yield start
    for browser in started.values():
        browser.quit()


@pytest.fixture(params=[400, 1600])
def page(request: Any, browsers: Callable[..., Any], site: Any) -> Iterator[Any]:
    browser = browsers(request.param)
    browser.get(f"http://127.0.0.1:{site.port}/")
    wait(browser, lambda: "colours" in browser.title)
    yield browser
    assert not [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
    wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not browser.execute_script(wide)


def wait(browser: Any, condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end, browser.find_element("tag name", "body").text
        time.sleep(0.05)
    return found


def cards(browser: Any, count: int) -> list[Any]:
    """The cards of so many photos, once each has labels or an error."""
    wait(browser, lambda: len(browser.find_elements("css selector", ".labels, .bad")) == count)
    return browser.find_elements("css selector", "#results .card")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_photo_that_is_dropped_or_pasted_gets_its_label(kind: str, page: Any) -> None:
    assert page.execute_script(CARRY, kind, base64.b64encode(png("#0000ff")).decode())
    (card,) = cards(page, 1)
    lines = card.text.splitlines()
    assert lines[0] == "carried.png"
    assert next(line for line in lines if line in ("red", "green", "blue")) == "blue"
    assert "98.7 %" in lines  # the softmax of 5
    assert any("ms on the server, engine keras" in line for line in lines)
    assert "blue, 98.7 %" in page.find_element("id", "said").get_attribute("textContent")
    bars = [bar.value_of_css_property("width") for bar in card.find_elements("css selector", ".fill")]
    assert len(bars) == 3


def test_dropped_text_is_left_to_the_browser(page: Any) -> None:
    script = "const e = new DragEvent('drop', {dataTransfer: new DataTransfer(), bubbles: true, cancelable: true});"
    assert not page.execute_script(f"{script} document.body.dispatchEvent(e); return e.defaultPrevented")


def test_several_chosen_files_get_a_card_each_and_a_bad_one_its_reason(page: Any, tmp_path: Path) -> None:
    for name, data in (("a.png", png()), ("b.png", png("#00ff00")), ("c.png", b"no photo")):
        (tmp_path / name).write_bytes(data)
    page.find_element("id", "files").send_keys("\n".join(str(path) for path in sorted(tmp_path.iterdir())))
    bad, green, red = cards(page, 3)
    assert ["red" in red.text, "green" in green.text, "is not an image" in bad.text] == [True, True, True]
    assert not bad.find_element("css selector", ".picture").is_displayed()


def test_the_activation_map_is_shown_and_hidden(page: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    page.find_element("id", "files").send_keys(str(tmp_path / "a.png"))
    (card,) = cards(page, 1)
    image, button = (card.find_element("tag name", tag) for tag in ("img", "button"))
    photo = image.get_attribute("src")
    button.send_keys(ENTER)
    wait(page, lambda: button.text == "Hide activation map")
    assert image.get_attribute("src") != photo
    wait(page, lambda: page.execute_script("return arguments[0].naturalWidth", image) > 0)
    button.click()
    assert (button.text, image.get_attribute("src")) == ("Show activation map", photo)


def test_the_keyboard_reaches_the_buttons_and_shows_where_it_is(page: Any) -> None:
    phone = page.find_element("css selector", ".camera").is_displayed()
    for name in ["camera", "files"] if phone else ["files"]:
        webdriver.ActionChains(page).send_keys(TAB).perform()
        focused = page.switch_to.active_element
        assert focused.get_attribute("id") == name
        style = "return getComputedStyle(arguments[0].nextElementSibling).outlineStyle"
        assert page.execute_script(style, focused) == "solid"


def test_phones_get_a_button_for_the_camera(page: Any) -> None:
    narrow = page.execute_script("return innerWidth") < 500
    assert page.find_element("css selector", ".camera").is_displayed() == narrow
    assert page.find_element("id", "camera").get_attribute("capture") == "environment"


def test_the_page_asks_for_the_key(browsers: Callable[..., Any], colours: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    browser = browsers(1600)
    with running(Settings(model=colours, engine="keras", port=0, api_key=KEY)) as site:
        browser.get(f"http://127.0.0.1:{site.port}/")
        field = browser.find_element("css selector", "#key input")
        wait(browser, field.is_displayed)
        field.send_keys("wrong", ENTER)
        wait(browser, lambda: "missing or wrong" in browser.find_element("id", "about").text)
        field.clear()
        field.send_keys(KEY, ENTER)
        wait(browser, lambda: not field.is_displayed())
        browser.find_element("id", "files").send_keys(str(tmp_path / "a.png"))
        assert "red" in cards(browser, 1)[0].text
        browser.get_log("browser")
