"""The code of one image at several rates: with fewer parts, or other prices."""

from typing import Any, NamedTuple

import jax
import numpy as np

from lasers_jax.bottlenecks import Bottleneck
from lasers_jax.bottlenecks.parts import Parts
from lasers_jax.codec.model import ModelCodec
from lasers_jax.codec.site_bits import site_bits
from lasers_jax.codec.state import State
from lasers_jax.codec.state import load as load_state
from lasers_jax.experiment import codecs
from lasers_jax.experiment.codecs import Choice
from lasers_jax.experiment.model import TrainedModel
from lasers_jax.experiment.part_pictures import signals_of
from lasers_jax.metrics import similarity
from lasers_jax.networks.autoencoder import Autoencoder
from lasers_jax.priors.maps.events import Events
from lasers_jax.report.explore import Stop

STOPS = 8  # numbers of parts, at most
HIGHER = 2, 4  # times the price
USUAL_PRICE = 0.15  # of a bit, where a model was trained without
RATES = 'step', 'price'  # the fields of codes that are chosen by their bits


class Coded(NamedTuple):
  """A code of an image.

  Attributes:
    parts: of NumPy arrays [H, W, M]; without `rows` where codes are no sums.
    bits: of each site in a file, [H, W]; None where no codec is fitted.
  """

  parts: Parts
  bits: np.ndarray | None


class Rates(NamedTuple):
  """The positions of a slider, and the codes that they are decoded from.

  Attributes:
    slider: what they differ in; '' of one alone.
    stops: those of fewer bits first.
    codes: one, or as many as stops.
    start: the position of the model as it is.
    size: bytes of its file; None where no codec is fitted.
  """

  slider: str
  stops: list[Stop]
  codes: list[Coded]
  start: int
  size: int | None


def rates(model: TrainedModel, image: np.ndarray) -> Rates:
  """Codes an image, and decodes it at the rates that the code has.

  Raises:
    InputError: bits have a price, and no codec says how many there are.
  """
  if 'price' in model.module.bottleneck.adjustable:
    return _by_price(model, image)
  return _by_parts(model, image)


def _by_parts(model: TrainedModel, image: np.ndarray) -> Rates:
  """Decodes the first parts of each site, where these are a code as well."""
  size, codec = image.shape[:2], _stored_codec(model)
  module, length = model.module, None
  if codec is None:
    codes = model.encode(image)
    coded = _taken_apart(module, model.variables, codes, size, None)
    whole, bits = model.decode(codes, size), nominal_bits(module, size)
  else:
    coded, whole, bits = _in_file(codec, image)
    length = int(bits) // 8
  most, field = coded.parts.indices.shape[-1], module.bottleneck.counted_by
  if not field or most == 1:
    is_file = codec is not None
    stop = _stop('as trained', image, whole, bits, is_file, 0, most)
    return Rates('', [stop], [coded], 0, length)
  stops = []
  for count in _spread(most):
    decoded = whole
    if count < most:
      decoded = decode_parts(model, coded.parts, count, size)
    bits = nominal_bits(module, size, **{field: count})
    name = f'{count} of {most}'
    stops.append(_stop(name, image, decoded, bits, False, 0, count))
  slider = 'Atoms used at each site, the strongest'
  if len(coded.parts.names) > 1:
    slider = 'Levels used at each site, the first'
  return Rates(slider, stops, [coded], len(stops) - 1, length)


def decode_parts(
  model: TrainedModel, parts: Parts, count: int, size: tuple[int, int]
) -> np.ndarray:
  """Decodes the first parts of each site: uint8 [h, w, 3]."""
  signals = signals_of(parts, count)[None]
  latents = model.module.apply(model.variables, signals, method='unpack')
  return model.decode_latents(np.asarray(latents), size)[0]


def nominal_bits(
  module: Autoencoder, size: tuple[int, int], **fields: Any
) -> float:
  """Returns the bits of a picture by a code of fixed length.

  Args:
    fields: of the bottleneck that differ, such as S=2.
  """
  bottleneck = module.bottleneck.clone(**fields)
  bits = bottleneck.map_bits(*module.coded_sites(*size))
  assert bits is not None  # `explore` saw to it
  return bits


def _spread(most: int) -> list[int]:
  """Returns STOPS numbers from 1 to the most, or all."""
  steps = np.linspace(1, most, min(most, STOPS))
  return np.unique(steps.round().astype(int)).tolist()


def _by_price(model: TrainedModel, image: np.ndarray) -> Rates:
  """Codes at each step that the model has a codec of, and at other prices.

  A decoder need not know the price, so one state serves all prices.
  """
  states, price = _states(model), model.module.bottleneck.price
  plan = [(state, price) for state in states]
  plan += [(states[-1], x * (price or USUAL_PRICE)) for x in HIGHER]
  plan += [(states[0], 0.0)] if price else []
  found = []
  for state, own in plan:
    changed = model.with_(**{**state.changes, 'price': own})
    coded, decoded, bits = _in_file(_codec(changed, state), image)
    name = f'step {changed.module.bottleneck.step:g}, price {own:g}'
    used = coded.parts.indices.shape[-1]
    stop = _stop(name, image, decoded, bits, True, 0, used)
    found.append((stop, coded, own == price and state.changes == model.changes))
  found.sort(key=lambda x: x[0].bits)
  stops, codes, starts = zip(*found, strict=True)
  stops = [stop._replace(code=i) for i, stop in enumerate(stops)]
  start = starts.index(True) if True in starts else len(starts) // 2
  slider = 'Step of rounding, and price of a bit in squared steps'
  return Rates(slider, stops, list(codes), start, int(stops[start].bits) // 8)


def _codec(model: TrainedModel, state: State) -> ModelCodec:
  """Returns a codec of a state that may be of a model of another price."""
  return ModelCodec(
    model.module, model.variables, model.mesh, model.decoding, state
  )


def _states(model: TrainedModel) -> list[State]:
  """Returns a state for each step that there is a codec of, the finest first.

  Raises:
    InputError: there is none.
  """
  found: dict[float, State] = {}
  files = codecs.states_of(model.folder, model.weights, model.changes)
  for state in map(load_state, files):
    if state.changes.keys() <= set(RATES):
      step = model.with_(**state.changes).module.bottleneck.step
      known = found.get(step)
      if known is None or _has_context(state) > _has_context(known):
        found[step] = state
  if not found:
    choice = Choice(model.changes)
    raise codecs.no_state(model.module.bottleneck, model.folder, choice)
  return [found[step] for step in sorted(found)]


def _has_context(state: State) -> bool:
  return any('@' in name for name in state.tables)


def _stored_codec(model: TrainedModel) -> ModelCodec | None:
  """Returns the codec of the model as it is, with contexts if it has some."""
  for context in True, False:
    choice = Choice(model.changes, context=context)
    if codecs.stored_state(model.folder, choice, model.weights):
      return model.encoder(choice)
  return None


def _in_file(
  codec: ModelCodec, image: np.ndarray
) -> tuple[Coded, np.ndarray, int]:
  """Returns the code of an image, what its file decodes to, and its bits."""
  codes, size = codec.codes_of(image), image.shape[:2]
  data = codec.codec.write(codes, *size)
  tables = codec.state.tables
  coded = _taken_apart(codec.model, codec.variables, codes, size, tables)
  return coded, codec.decode(data), 8 * len(data)


def _taken_apart(
  module: Autoencoder,
  variables: Any,
  codes: Any,
  size: tuple[int, int],
  tables: Any,
) -> Coded:
  """Takes the codes of one image apart."""
  sites, bottleneck = module.coded_sites(*size), module.bottleneck
  bits = None
  if tables is not None:
    bits = site_bits(bottleneck, tables, codes, sites)
  batch = jax.tree.map(lambda x: np.asarray(x)[None], codes)
  parts: Any = module.apply(
    variables, batch, method=lambda bound, x: bound.bottleneck.parts(x)
  )
  if parts is None:
    return Coded(_events(bottleneck, codes, sites), bits)
  indices, amounts, rows, rest = map(np.asarray, parts[:4])
  return Coded(Parts(indices[0], amounts[0], rows, rest, parts.names), bits)


def _events(
  bottleneck: Bottleneck, codes: Any, sites: tuple[int, int]
) -> Parts:
  """Returns the integers of codes that are no sums, as parts without rows."""
  events = Events.of(bottleneck, sites)
  planes, sizes = events.record(codes), events.layout.sizes
  kept = np.ones(planes.shape[:2], bool)
  if events.layout.kept is not None:  # the first plane says which sites are
    kept, planes, sizes = planes[..., 0] > 0, planes[..., 1:], sizes[1:]
  starts = np.cumsum([0, *sizes[:-1]])
  amounts = np.broadcast_to(kept[..., None], planes.shape).astype(np.float32)
  names = [(f'plane {i + 1}, code', n) for i, n in enumerate(sizes)]
  if len(sizes) == 1:
    names = [('code', sizes[0])]
  none = np.zeros((0, 0), np.float32)
  return Parts(
    planes + starts, amounts, none, np.zeros(0, np.float32), tuple(names)
  )


def _stop(
  name: str,
  image: np.ndarray,
  decoded: np.ndarray,
  bits: float,
  is_file: bool,
  code: int,
  used: int,
) -> Stop:
  psnr = float(similarity.psnr(image[None], decoded[None])[0])
  return Stop(name, decoded, psnr, float(bits), is_file, code, used)
