"""The page of a code: its data, and what it shows when it is used."""

import json
import re

import numpy as np
import pytest

from lasers_jax.report import explore
from lasers_jax.report.document import Origin
from lasers_jax.report.explore import Added, Code, Exploration, Stop, Use
from tests import browser
from tests.report.document_test import Page, sections

NAMES = (('level 1, code', 4), ('level 2, code', 4))
SITES = 2, 3
ORIGIN = Origin({'seed': 0}, [], {'jax': '1'}, 'lasers-jax explore <x>')


def picture(colour, height=8, width=12):
  return np.full((height, width, 3), colour, np.uint8)


def exploration(bits=True, **changes):
  """Six sites of two levels, in two positions."""
  indices = np.arange(12).reshape(*SITES, 2) % 4 + np.array([0, 4])
  amounts = np.full((*SITES, 2), 1.0)
  amounts[0, 1] = 2.5, -0.123456
  amounts[1, 2] = 0
  each = np.arange(6.0).reshape(SITES) * 1.26 if bits else None
  firsts = {(y, x): 2 * (3 * y + x) for y in range(2) for x in range(3)}
  numbers = np.array([0, 2, 4])
  found = Exploration(
    title='The code of a </script> & b.png',
    image=picture(100),
    stride=4,
    slider='Levels used at each site, the first',
    stops=[
      Stop('1 of 2', picture(90), 28.13, 24, False, 0, 1),
      Stop('2 of 2', picture(98), 42.11, 48, False, 0, 2),
    ],
    start=1,
    codes=[Code(indices, amounts, (amounts != 0).sum(-1), each)],
    names=NAMES,
    added=Added(
      np.stack([picture(i, 5, 5) for i in range(12)]),
      firsts, np.arange(12.0), 3.0, 1, 2,
    ),
    use=Use(
      np.array([3, 0, 3, 0, 3, 0, 0, 0]),
      np.stack([picture(i, 5, 5) for i in range(3)]), numbers, 5,
    ),
    nominal=8.0,
    size=37,
    facts=[('Model', 'm'), ('Bottleneck', 'residual'), ('Sites', '2 × 3')],
    remarks=['The image has 99 × 99 pixels.'],
  )  # fmt: skip
  return found._replace(**changes)


def data_of(text):
  found = re.search(r'type="application/json" id="data">(.*?)</script>', text)
  return json.loads(found[1])


def test_the_page_holds_all_that_it_shows():
  found = exploration()
  text = explore.render(found, ORIGIN)
  data = data_of(text)
  assert data['size'] == [8, 12]
  assert data['sites'] == [2, 3]
  assert [x['rate'] for x in data['stops']] == ['0.250', '0.500']
  assert data['stops'][0]['remark'] == 'nominal, of fixed length: 24 bits'
  [code] = data['codes']
  assert code['indices'][0] == [0, 5]
  assert code['amounts'][1] == [2.5, -0.123]
  assert code['indices'][5] == []
  assert code['counts'] == [2, 2, 2, 2, 2, 0]
  assert code['bits'] == [0, 1.3, 2.5, 3.8, 5.0, 6.3]
  shown = Page(f'<img src="{data["stops"][0]["image"]}" alt="a">').pictures
  np.testing.assert_array_equal(shown[0], found.stops[0].image)
  error = Page(f'<img src="{data["stops"][0]["error"]}" alt="a">').pictures
  np.testing.assert_array_equal(error[0], picture(50))


def test_pictures_of_parts_lie_on_one_sheet():
  data = data_of(explore.render(exploration(), ORIGIN))
  sheet = Page(f'<img src="{data["added"]["sheet"]}" alt="a">').pictures[0]
  columns = data['added']['columns']
  assert sheet.shape[1] == 5 * columns
  for site, first in data['added']['firsts'].items():
    assert first == 2 * int(site)
    assert (sheet[:5, 5 * first : 5 * first + 5] == first).all()
  assert data['alone']['places'] == {'0': 0, '2': 1, '4': 2}


@pytest.mark.parametrize(
  ('index', 'name'), [(0, 'level 1, code 0'), (7, 'level 2, code 3')]
)
def test_parts_have_names(index, name):
  assert explore.label(NAMES, index) == name
  assert explore.unit(NAMES) == 'code'


def test_other_kinds_are_parts():
  assert explore.unit((('channel', 3), ('atom', 2))) == 'part'
  assert explore.unit((('channel', 3), ('atom', 0))) == 'channel'


def test_bits_are_said_to_be_of_a_file_or_nominal():
  nominal = Page(explore.render(exploration(bits=False, size=None), ORIGIN))
  assert 'fixed length, 8 bits a site' in nominal.text
  assert 'in a file' not in nominal.text
  both = explore.render(exploration(), ORIGIN)
  assert 'Bits per pixel in a file</dt><dd class="value">3.083<' in both
  stops = [Stop('as trained', picture(9), 20.0, 800, True, 0, 2)]
  text = explore.render(exploration(stops=stops, start=0, slider=''), ORIGIN)
  data = data_of(text)
  assert data['stops'][0]['remark'] == 'of a real file of 100 bytes'
  assert 'type="range"' not in text


def test_a_code_of_zeros_has_a_page():
  none = Code(*(np.zeros((*SITES, 2), int),) * 2, np.zeros(SITES, int), None)
  empty = Use(np.zeros(8, int), np.zeros((0, 1, 1, 3), np.uint8), [], 1)
  found = exploration(codes=[none], use=empty)
  text = Page(explore.render(found, ORIGIN)).text
  assert '0 of 8 codes are used' in text


def test_nothing_comes_from_elsewhere():
  text = explore.render(exploration(), ORIGIN)
  assert not re.search(r'(src|href)="(?!data:|#)', text)
  assert "default-src 'none'" in text
  assert '</script> &' not in text
  assert 'use' in sections(text)


# Uses a page as a reader would, as wide as a screen and as a phone.
_USE = """<!doctype html>
<iframe src="{page}" style="width:1280px;height:3000px"></iframe>
<iframe src="{page}" style="width:360px;height:3000px"></iframe>
<script>
function use(frame) {{
  const inside = frame.contentDocument, view = frame.contentWindow;
  const byId = id => inside.getElementById(id);
  const say = (...words) => console.log(words.join(' | '));
  const site = () => say(byId('said').textContent.trim(),
    ...[...byId('parts').children].map(x => x.textContent),
    inside.querySelector('.box').style.left, byId('row').value);
  const stage = inside.querySelector('.stage');
  const point = (type, x, y) => {{
    const box = stage.getBoundingClientRect();
    stage.dispatchEvent(new view.PointerEvent(type, {{
      clientX: box.left + x * box.width, clientY: box.top + y * box.height,
    }}));
  }};
  const key = name => stage.dispatchEvent(
    new view.KeyboardEvent('keydown', {{key: name}}));
  const rate = () => say(byId('psnr').textContent, byId('rate').textContent,
    byId('rate-remark').textContent);
  rate();
  const before = byId('image').src;
  byId('stop').value = 0;
  byId('stop').dispatchEvent(new view.Event('input'));
  rate();
  say(byId('image').src !== before, byId('stop').getAttribute('aria-valuetext'),
    byId('parts').querySelectorAll('.out').length);
  point('pointermove', 0.5, 0.2);
  site();
  point('click', 0.9, 0.9);
  point('pointermove', 0.1, 0.1);
  site();
  key('Escape');
  key('ArrowUp');
  key('ArrowLeft');
  key('ArrowLeft');
  key('ArrowLeft');
  site();
  byId('column').value = 2;
  byId('column').dispatchEvent(new view.Event('change'));
  site();
  const asked = view.performance.getEntriesByType('resource')
    .filter(x => !x.name.startsWith('data:')).length;
  const broken = [...inside.images].filter(x => !x.naturalWidth).length;
  const over = inside.documentElement.scrollWidth > frame.clientWidth;
  say('asked', asked, 'broken', broken, 'over', over);
}}
onload = () => document.querySelectorAll('iframe').forEach(use);
</script>
"""
_SEEN = [
  '42.11 dB | 0.500 | nominal, of fixed length: 48 bits',
  '28.13 dB | 0.250 | nominal, of fixed length: 24 bits',
  'true | 1 of 2 | 1',
  'Row 0, column 1: 1.3 bits of the file. 2 codes.'
  ' | level 1, code 2 × 2.5aloneadds here, up to 2'
  ' | level 2, code 3 × −0.123, left outadds here, up to 3 | 33.3333% | 0',
  'Row 1, column 2: 6.3 bits of the file. All codes are zero. '
  'Held. | 66.6667% | 1',
  'Row 0, column 0: 0 bits of the file. 2 codes.'
  ' | level 1, code 0 × 1aloneadds here, up to 0'
  ' | level 2, code 1 × 1, left outadds here, up to 1 | 0% | 0',
  'Row 0, column 2: 2.5 bits of the file. 2 codes.'
  ' | level 1, code 0 × 1aloneadds here, up to 4'
  ' | level 2, code 1 × 1, left outadds here, up to 5 | 66.6667% | 0',
  'asked | 0 | broken | 0 | over | false',
]


@browser.needed
def test_a_browser_shows_what_is_asked_for(tmp_path):
  page, driver = tmp_path / 'page.html', tmp_path / 'use.html'
  page.write_text(explore.render(exploration(), ORIGIN), encoding='utf-8')
  driver.write_text(_USE.format(page=page.as_uri()))
  said, _ = browser.look(driver, tmp_path)
  said = [re.sub(r'^"|", source: .*$', '', line) for line in said]
  assert said == 2 * _SEEN
