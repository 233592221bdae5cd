"""Trained models: one value that encodes, decodes and compresses images."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lasers_jax import inference
from lasers_jax.codec.coder import range_coder
from lasers_jax.codec.container import unpack
from lasers_jax.codec.model import ModelCodec
from lasers_jax.codec.state import State
from lasers_jax.core import sharding
from lasers_jax.core.images import as_batch, check_one
from lasers_jax.core.trees import merge
from lasers_jax.decoders import DEFAULT, SamplingSettings
from lasers_jax.errors import InputError
from lasers_jax.evaluation.latents import measure_latents
from lasers_jax.experiment import codecs, exported, formats, settings, sources
from lasers_jax.experiment.codecs import AS_TRAINED, Choice
from lasers_jax.experiment.restoring import check_same, prepare
from lasers_jax.networks.autoencoder import Autoencoder

SAMPLED = 1_000  # training images that statistics of latents are of


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TrainedModel:
  """A trained model: it encodes, decodes, reconstructs and compresses images.

  Images are uint8 or float in [0, 1], [B, h, w, 3] or a single [h, w, 3], of
  any size. A single image gives a single result. All results are NumPy arrays.

  Attributes:
    experiment: the objects built from the config.
    variables: averaged parameters and statistics, on every device.
    config: nested dictionaries, with all changes since training.
    mesh: the devices to compute on.
    step: the step of the checkpoint.
    path: what it was loaded from: a workdir, an exported model, or files of
      another project.
    changes: values of fields of the bottleneck, changed since training.
  """

  experiment: settings.Experiment
  variables: Any
  config: Mapping[str, Any]
  mesh: Mesh
  step: int
  path: str
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # By the file or the name of their state. A changed model starts without any.
  _codecs: dict[Any, ModelCodec] = dataclasses.field(
    default_factory=dict, init=False
  )

  def __repr__(self) -> str:
    bottleneck = self.config['bottleneck']['name']
    kind = type(self).__name__
    return f'<{kind} {self.path!r}: {bottleneck}, step {self.step}>'

  @property
  def module(self) -> Autoencoder:
    """Returns the Flax module of the variables."""
    return self.experiment.model

  @property
  def folder(self) -> str:
    """Returns the folder of what is made with it: codecs, samples, results."""
    return self.path

  @property
  def decoding(self) -> SamplingSettings:
    """Returns the sampling settings of the decoder; one pass has none."""
    return self.experiment.decoding

  @functools.cached_property
  def weights(self) -> str:
    """Returns the hash of the variables: 16 hexadecimal digits."""
    return inference.weights_hash(self.variables)

  def encode(self, images: Any) -> Any:
    """Returns the codes of images, exactly as they would be stored.

    Returns:
      A pytree of arrays [B, ...], which depends on the bottleneck.

    Raises:
      InputError: a shape, type or value that cannot be used.
    """
    return self._coded(images)[0]

  def latents(self, images: Any) -> np.ndarray:
    """Returns the latents that the decoder receives: float32 [B, H, W, D]."""
    return self._coded(images)[1]

  def decode(self, codes: Any, size: tuple[int, int] | None = None) -> Any:
    """Decodes codes of `encode` to images uint8 [B, h, w, 3].

    Args:
      size: height and width of the images; None takes those of the padded ones.

    Raises:
      InputError: the codes are not of this model, or of another size.
    """
    leaves, expected = jax.tree.leaves(codes), self._ranks
    ranks = [np.ndim(x) for x in leaves]
    single = ranks == [rank - 1 for rank in expected]
    if not single and ranks != expected:
      raise InputError(
        f'codes of this model are {len(expected)} arrays of the ranks '
        f'{expected}, or one less for a single image, not {ranks}'
      )
    if single:
      codes = jax.tree.map(lambda x: np.asarray(x)[None], codes)
    latents = inference.look_up(self.module, self.variables, codes)
    images = self.decode_latents(latents, size)
    return images[0] if single else images

  def decode_latents(
    self, latents: Any, size: tuple[int, int] | None = None
  ) -> np.ndarray:
    """Decodes latents of `latents` to images uint8 [B, h, w, 3].

    Raises:
      InputError: the latents are not [B, H, W, D] or [H, W, D], or of images of
        another size.
    """
    latents, width = np.asarray(latents, np.float32), self.module.encoder.D
    single = latents.ndim == 3
    batch = latents[None] if single else latents
    if batch.ndim != 4 or batch.shape[-1] != width or not batch.size:
      raise InputError(
        f'latents must be [B, H, W, {width}] or [H, W, {width}], not '
        f'{list(latents.shape)}'
      )
    sites = batch.shape[1:3]
    if size is not None and (
      min(size) < 1 or tuple(self.module.sites(*size)) != sites
    ):
      raise InputError(
        f'size {size[0]}x{size[1]} is not that of an image with '
        f'{sites[0]}x{sites[1]} latents'
      )
    images = inference.decode_latents(
      self.module, self.variables, batch, self.mesh, self.decoding, size
    )
    return images[0] if single else images

  def reconstruct(self, images: Any) -> np.ndarray:
    """Encodes and decodes images, as evaluation does: uint8 [B, h, w, 3]."""
    batch, single = as_batch(images)
    return self._through(batch, single)

  def restore(self, images: Any, mask: Any = None) -> np.ndarray:
    """Restores degraded images, of super-resolution small ones.

    Args:
      mask: of inpainting, true in the holes: bool [B, h, w], or [h, w].

    Raises:
      InputError: the model restores nothing, or a mask does not fit.
    """
    batch, single = as_batch(images)
    batch = prepare(self.experiment.degradation, batch, mask)
    return self._through(batch, single)

  def bits_per_pixel(self, height: int, width: int) -> float | None:
    """Returns the fixed-length bits per pixel; None for a continuous code."""
    bits = self.module.map_bits(height, width)
    return None if bits is None else bits / (height * width)

  def compress(
    self, image: Any, context: bool = False, search: int = 0
  ) -> bytes:
    """Returns the bytes of an image uint8 [h, w, 3], as `codec encode` does.

    Args:
      context: whether to use the context model; see `fit_codec`.
      search: rounds in which the decoder improves the codes; some 8.

    Raises:
      InputError: the codec is not fitted yet: call `fit_codec` before. Or a
        search requires what the model does not have.
    """
    codecs.check_search(self, search)
    image = check_one(image)
    codec = self._stored_codec(Choice(self.changes, context=context))
    return codec.encode(image, search)

  def decompress(self, data: bytes) -> np.ndarray:
    """Returns the image of the bytes of a file: uint8 [h, w, 3].

    Raises:
      InputError: the file is damaged, or of another model.
    """
    return self.decoder(unpack(data).model).decode(data)

  def fit_codec(self, images: Any = None, context: bool = False) -> None:
    """Fits the codec to images, and writes its state into the model's folder.

    Reading a compressed file requires the model and this state. A state that is
    there already is kept, since files depend on it.

    Args:
      images: [B, h, w, 3], or a data source; None takes training images.
      context: whether to train a context model, too, which predicts codes from
        those around them: smaller files, more time.

    Raises:
      InputError: the code is continuous, or there are no images to fit to.
    """
    source = None if images is None else sources.by_role(images)['train']
    self.encoder(Choice(context=context), source)

  def encoder(
    self, choice: Choice = AS_TRAINED, source: Any = None
  ) -> ModelCodec:
    """Returns the codec of a choice, and fits it to images where it is new.

    Args:
      source: the images to fit to; None takes training images.

    Raises:
      InputError: the code is continuous, or there are no images to fit to.
    """
    range_coder()  # raises where none is installed, before codes are counted
    model = self.with_(**choice.changes)
    choice = choice._replace(changes=model.changes)
    state = codecs.stored_state(self.folder, choice, self.weights)
    if state is None:
      state = codecs.new_state(model, choice, source)
    return model._codec(state, choice.file)

  def decoder(self, name: bytes) -> ModelCodec:
    """Returns the codec that wrote a file, by the name in the file.

    Raises:
      InputError: its state is not in the folder of the model.
    """
    if name not in self._codecs:
      state, file = codecs.named_state(self.folder, name, self.weights)
      codec = self.with_(**state.changes)._codec(state, file)
      self._codecs[name] = codec
    return self._codecs[name]

  def statistics(self, source: Any = None) -> dict[str, Any]:
    """Measures latents and codes over training images; see `measure_latents`.

    Args:
      source: of the images; None opens the training split of the config.

    Raises:
      InputError: the images cannot be opened.
    """
    batches = self.sample_batches(SAMPLED, source)
    return measure_latents(self.module, self.variables, batches, self.mesh)

  def export(
    self,
    folder: str | os.PathLike,
    format: str | None = None,
    half: bool = False,
    licence: str = '',
    side: int | None = None,
  ) -> None:
    """Writes the model into a folder that needs no checkpoint and no data.

    `load` reads it. An exported model in the folder is replaced; any other
    content is refused. The folder is written whole or not at all. Statistics of
    latents are measured over training images, where these can be opened.

    Args:
      format: None writes what `load` reads. The others of `formats.FORMATS`
        write a new folder, for programs that are not of this project.
      half: whether to round the weights to float16: half the bytes. That is
        another model, whose codec and results are its own.
      licence: of the model, for its card.
      side: of the images that format='stablehlo' encodes; None: data.side.

    Raises:
      InputError: the folder cannot be written, or hold the model.
    """
    formats.export(self, os.fspath(folder), format, half, licence, side)

  def sample_batches(self, count: int, source: Any = None) -> Iterator[dict]:
    """Yields batches of some training images, evenly spread over all.

    Of a restoration they are what the encoder sees of degraded ones.

    Args:
      count: of images, at most.
      source: of the images; None opens the training split of the config.
    """
    if source is None:
      source = self.open_split(self.experiment.data.train)
    return sources.sample_batches(self.experiment, source, count)

  def open_split(self, split: str, minimum_side: int = 1) -> Any:
    """Opens a split that the config names; see `sources.open_split`."""
    # A workdir remembers which images are good; an export stays as it is.
    workdir = None if exported.is_exported(self.path) else self.path
    return sources.open_split(self.experiment, split, workdir, minimum_side)

  def with_(self, **fields: Any) -> 'TrainedModel':
    """Returns the model with other fields of its bottleneck, such as S=3.

    Raises:
      InputError: a field is unknown or not one of the bottleneck's
        `adjustable`, or its value cannot be used.
    """
    fields = codecs.other_values(fields, self.module.bottleneck)
    if not fields:
      return self
    changed = self.with_config(bottleneck=fields)
    return dataclasses.replace(changed, changes={**self.changes, **fields})

  def with_sampling(self, **fields: Any) -> 'TrainedModel':
    """Returns the model with other `decoder.sampling`, such as steps=5.

    Raises:
      InputError: the decoder has no such setting, or its value cannot be used.
    """
    if not fields:
      return self
    name = self.config.get('decoder', DEFAULT)['name']
    return self.with_config(decoder={'name': name, 'sampling': fields})

  def with_config(self, **sections: Mapping[str, Any]) -> 'TrainedModel':
    """Returns the model with other values in sections of its config.

    Raises:
      InputError: a key is unknown, its value cannot be used, or the weights
        were trained with another one.
    """
    config = merge(self.config, sections)
    experiment = settings.from_config(config)
    check_same(self.experiment.degradation, experiment.degradation)
    experiment.model.check_weights_of(self.module)
    mesh, variables = experiment.evaluation_mesh(), self.variables
    if mesh != self.mesh:
      home = sharding.replicated(mesh)
      variables = jax.device_put(jax.device_get(variables), home)
    return dataclasses.replace(
      self, experiment=experiment, config=config, mesh=mesh, variables=variables
    )

  def _through(self, images: Any, single: bool) -> np.ndarray:
    found = inference.reconstruct(
      self.module, self.variables, images, self.mesh, self.decoding
    )
    return found[0] if single else np.stack(found)

  def _coded(self, images: Any) -> tuple[Any, np.ndarray]:
    batch, single = as_batch(images)
    found = inference.encode(self.module, self.variables, batch, self.mesh)
    return jax.tree.map(lambda x: x[0], found) if single else found

  @functools.cached_property
  def _ranks(self) -> list[int]:
    """Returns the ranks of the arrays of codes of a batch."""
    side = self.module.pad_multiple
    codes = jax.eval_shape(
      lambda v, x: self.module.apply(v, x, method='encode'),
      self.variables,
      jax.ShapeDtypeStruct((1, side, side, self.module.channels), np.float32),
    )
    return [x.ndim for x in jax.tree.leaves(codes)]

  def _stored_codec(self, choice: Choice) -> ModelCodec:
    """Returns the stored codec of a choice, built once for each file version.

    Raises:
      InputError: there is no such state of these weights, or it is damaged.
    """
    version = codecs.file_version(self.folder, choice)
    codec = self._codecs.get(version)
    if codec is None:
      state = codecs.stored_state(self.folder, choice, self.weights)
      if state is None:
        raise codecs.no_state(self.module.bottleneck, self.folder, choice)
      codec = self._codecs[version] = self._codec(state, choice.file)
    return codec

  def _codec(self, state: State, file: str) -> ModelCodec:
    """Builds the codec of a state, which was read from a file."""
    try:
      return ModelCodec(
        self.module, self.variables, self.mesh, self.decoding, state
      )
    except InputError as error:
      raise InputError(
        f'{os.path.join(self.folder, file)} is damaged: {error}; remove it, '
        'and encode again'
      ) from error
