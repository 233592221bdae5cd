"""Writes the model card of an exported model, as Markdown."""

from collections.abc import Mapping
from typing import Any

from lasers_jax.evaluation import protocol

_CARD = """# {title}

An image autoencoder with coded latents, trained with `lasers_jax`.

```python
import lasers_jax as lj

model = lj.load('{folder}')
images = model.reconstruct(images)  # uint8 or float in [0, 1], [B, h, w, 3]
```

## What it is

* Bottleneck: {bottleneck}
* Networks: {network}
* Decoder: {decoder}
* Parameters: {parameters}
* Code: {code}

## How it was trained

* Data: `{data}`, split `{split}`, crops of {side}x{side} pixels
* Steps: {step:,} of {steps:,}, with {batch_size} images each
* Optimizer: {optimizer}
* Losses: {losses}
* Code of the project: {version}

## Results

{results}

## Latents

{latents}

## Licence

{licence}
"""
_PRIOR_CARD = """# {title}

A prior over the {view} of a trained model, trained with `lasers_jax`.

```python
import lasers_jax as lj

prior = lj.load_prior('{title}')
images = prior.images(prior.draw(prior.balanced_labels(16)))
```

## What it is

* Prior: {prior}
* Parameters: {parameters}
* Of the model: `{model}`, whose weights have the hash {weights}
* Classes: {classes}

## How it was trained

* Steps: {step:,} of {steps:,}, with {batch_size} images each
* Optimizer: {optimizer}
* Code of the project: {version}

## Licence

{licence}
"""
_SOURCE = 'pretrained', 'frozen', 'source_hash'
_NO_LICENCE = (
  'Unknown: the licence of the model is not stated here. The licence of the '
  'project\ncovers its code alone; the data may have terms of its own.'
)


def card(
  title: str,
  config: Mapping[str, Any],
  stats: Mapping[str, Any],
  about: Mapping[str, Any],
) -> str:
  """Returns the model card of a model.

  Args:
    title: the name of the model.
    config: complete, nested dictionaries.
    stats: as in stats.json.
    about: `step`, `parameters` of each part, `decoder`, `version` and
      `licence`, which may be empty.
  """
  sizes = about['parameters']
  return _CARD.format(
    title=title,
    folder=title,
    bottleneck=_fields(config['bottleneck']),
    network=_fields(_of_network(config['network'])),
    decoder=about['decoder'],
    parameters=', '.join(f'{name} {n:,}' for name, n in sizes.items()),
    code=_code(stats),
    data=config['data']['name'],
    split=config['data']['train'],
    side=config['data']['side'],
    step=about['step'],
    steps=config['steps'],
    batch_size=config['batch_size'],
    optimizer=_fields(config['optimizer']),
    losses=_fields(config['loss']['weights'], ''),
    version=about['version'],
    results=_results(stats['results'], stats['curve']),
    latents=_latents(stats['latent']),
    licence=about['licence'] or _NO_LICENCE,
  )


def prior_card(
  title: str, config: Mapping[str, Any], about: Mapping[str, Any]
) -> str:
  """Returns the card of a prior.

  Args:
    title: the name of the prior.
    config: complete, nested dictionaries.
    about: `step`, `parameters` of each part, `classes`, `version` and
      `licence`, which may be empty.
  """
  return _PRIOR_CARD.format(
    title=title,
    view=config['view'],
    prior=_fields(config['prior']),
    parameters=f'{sum(about["parameters"].values()):,}',
    model=config['stage_one']['path'],
    weights=config['stage_one']['weights'],
    classes=', '.join(about['classes']) or 'none',
    step=about['step'],
    steps=config['steps'],
    batch_size=config['batch_size'],
    optimizer=_fields(config['optimizer']),
    version=about['version'],
    licence=about['licence'] or _NO_LICENCE,
  )


def _of_network(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a section says of networks that may be of no tokenizer."""
  source = () if section.get('pretrained') else _SOURCE
  return {name: x for name, x in section.items() if name not in source}


def _fields(section: Mapping[str, Any], name: str = 'name') -> str:
  """Returns a section of a config on one line, its name first."""
  fields = ', '.join(f'{k} {x}' for k, x in section.items() if k != name)
  return f'`{section[name]}` ({fields})' if name in section else fields


def _code(stats: Mapping[str, Any]) -> str:
  bits, side = stats['bits_per_pixel'], stats['side']
  if isinstance(bits, str):
    return bits
  return f'{bits:.4g} bits per pixel of a {side}x{side} image, fixed length'


def _results(
  results: Mapping[str, Any] | None, curve: Mapping[str, Any] | None
) -> str:
  parts = [_quality(results)] if results else []
  parts += [_files(curve)] if curve else []
  missing = 'Not measured. `lasers_jax.evaluate(model)` measures it.'
  return '\n\n'.join(parts) or missing


def _files(curve: Mapping[str, Any]) -> str:
  images = curve['protocol']['images']
  lines = [
    f'Files of {len(images)} images, from {images[0]} to {images[-1]}, all '
    'bytes counted (`lasers-jax codec curve`):',
    '',
    '| setting | bits per pixel | PSNR in dB | SSIM |',
    '| --- | --- | --- | --- |',
  ]
  for row in curve['rows']:
    bits, psnr, ssim = (
      row['bits_per_pixel'],
      row['psnr']['mean'],
      row['ssim']['mean'],
    )
    lines.append(f'| {row["setting"]} | {bits:.3f} | {psnr:.2f} | {ssim:.3f} |')
  return '\n'.join(lines)


def _quality(results: Mapping[str, Any]) -> str:
  said = results['protocol']
  lines = [
    f'{protocol.one_line(results)}.',
    '',
    f'Measured over `{said.get("data")}`, split `{said.get("split")}`, '
    f'{said.get("crop") or "whole images"}; {said.get("psnr")}. All results '
    'and their protocol are in stats.json.',
  ]
  return '\n'.join(lines)


def _latents(latent: Mapping[str, Any]) -> str:
  if 'missing' in latent:
    return f'No statistics: {latent["missing"]}.'
  mean, deviation = latent['mean'], latent['deviation']
  lines = [
    f'Over {latent["images"]:,} training images, {len(mean)} channels: means '
    f'from {min(mean):.3g} to {max(mean):.3g}, standard deviations from '
    f'{min(deviation):.3g} to {max(deviation):.3g} (stats.json has each).'
  ]
  if 'usage' in latent:
    lines.append(
      f'Usage of the code {latent["usage"]:.1%}, perplexity '
      f'{latent["perplexity"]:.1f}.'
    )
  return ' '.join(lines)
