"""Opens pages in headless Chromium, where there is one."""

import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

_NAMES = 'chromium', 'chromium-browser', 'google-chrome'
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
needed = pytest.mark.skipif(not CHROMIUM, reason='there is no Chromium')

# Two frames with a page, as wide as a screen and as a phone; what is larger
# than them, and what is not drawn, is said on the console.
_FRAMES = """<!doctype html>
<iframe src="{page}" style="width:1280px;height:4000px"></iframe>
<iframe src="{page}" style="width:360px;height:4000px"></iframe>
<script>
onload = () => {{
  for (const frame of document.querySelectorAll('iframe')) {{
    const inside = frame.contentDocument;
    const broken = [...inside.images].filter(x => !x.naturalWidth).length;
    const over = inside.documentElement.scrollWidth > frame.clientWidth;
    console.log(`broken ${{broken}} over ${{over}}`);
  }}
}};
</script>
"""


def look(page: pathlib.Path, folder: pathlib.Path, size=(1280, 2000)):
  """Opens a page.

  Args:
    folder: for what the browser writes.
    size: of its window, width and height.

  Returns:
    The lines on the console, and the screenshot, uint8 [height, width, 3].
  """
  shot = folder / 'shot.png'
  process = subprocess.run(
    [
      CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu',
      '--disable-dev-shm-usage', '--hide-scrollbars', '--no-first-run',
      '--allow-file-access-from-files',  # of the frames
      '--host-resolver-rules=MAP * ~NOTFOUND',  # there is no network
      f'--user-data-dir={folder / "profile"}', f'--screenshot={shot}',
      f'--window-size={size[0]},{size[1]}', '--enable-logging=stderr', '--v=0',
      page.as_uri(),
    ],
    capture_output=True, text=True, timeout=120,
  )  # fmt: skip
  assert shot.exists(), process.stderr
  said = re.findall(r':CONSOLE[:(]\d+\)?\] (.*)', process.stderr)
  return said, np.asarray(Image.open(shot).convert('RGB'))


def look_framed(page: pathlib.Path, folder: pathlib.Path) -> list[str]:
  """Opens a page as wide as a screen and as a phone; gives the console."""
  frames = folder / 'frames.html'
  frames.write_text(_FRAMES.format(page=page.as_uri()))
  return look(frames, folder)[0]


def assert_readable(shot: np.ndarray) -> None:
  """A screenshot shows dark signs on a light ground."""
  grey = shot.mean(axis=2)
  assert np.median(grey) > 240
  assert np.mean(grey < 90) > 1e-3
