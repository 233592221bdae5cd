"""The rows that suite.py makes: what is trained and measured for which file."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lasers_jax.bottlenecks import BOTTLENECKS

SEEDS = 0, 1, 2
RATES = '0.5625,2'  # bits per pixel
BEST = 'lasers', 'vq', 'residual', 'product', 'fsq'
SHARP = (
  'vq+wide,vq+lpips+wide,vq+gan+wide,vq+diffusion,vq+swycc-mse,vq+swycc,'
  'vq+swycc-mse+tuned,vq+swycc+tuned'
)
PERCEPTUAL = '--metrics=lpips-vgg16,lpips-alexnet,fd-vgg16'
LATENTS = 'ae', 'rae', 'wae', 'beta_vae', 'vae', 'info_vae'
SPEED = {
  'omp': 'omp',
  'train_step': 'step',
  'bottlenecks': 'bottlenecks',
  'decoders': 'decoders',
}


class Row(NamedTuple):
  """Commands, and the result file that their numbers go into.

  Attributes:
    name: of the row, which other rows may begin with.
    file: in docs/results, without its suffix.
    commands: run one after the other. {runs} is the folder of all runs, and
      {steps} how long to train.
    found: the file that the commands leave.
    steps: on a CPU, and on an accelerator.
    told: what the result file says besides.
  """

  name: str
  file: str
  commands: tuple[str, ...]
  found: str
  steps: tuple[int, int] = (1_000, 7_000)
  told: Mapping[str, Any] = MappingProxyType({})


def compared(
  name: str,
  file: str,
  bottlenecks: str,
  more: str = '',
  rates: str = RATES,
  config: str = 'cifar10',
  **fields: Any,
) -> Row:
  """Returns the row of a comparison, whose models stand in {runs}/NAME."""
  folder = f'{{runs}}/{name}'
  command = (
    f'lasers-jax compare --config={config} --workdir={folder} '
    f'--bottlenecks={bottlenecks} --bits_per_pixel={rates} '
    f'--config.steps={{steps}} --config.evaluate_every=0 {more}'
  )
  return Row(name, file, (command.strip(),), f'{folder}/table.json', **fields)


def seeded(
  group: str, file: str, bottlenecks: Iterable[str], steps: tuple[int, int]
) -> Iterator[Row]:
  """Each bottleneck, at two rates, by three seeds."""
  for seed in SEEDS:
    for name in bottlenecks:
      yield compared(
        f'{group}/seed-{seed}/{name}',
        file,
        name,
        f'--config.seed={seed}',
        steps=steps,
        told={'seed': seed},
      )


def files() -> Iterator[Row]:
  """Files of photographs by codes of the same network, and by a larger f."""
  priced = '--quantizer_step=0.12,0.225,0.4,0.7'
  same = (
    ' --config.network.f=8 --config.network.D=192 '
    '--config.network.channels=192 --config.bottleneck.limit=127'
  )
  extras = f'{same} --config.bottleneck.extras=192'
  settings = (
    ('large', 'lasers', '', f'{priced} --search=0,8'),
    ('lasers', 'lasers', same, f'{priced} --search=0,8'),
    ('extras', 'lasers', extras, priced),
    (
      'entropy',
      'entropy',
      '',
      '--quantizer_step=0.1,0.2,0.35,0.6 --price=0.15 --search=0,8',
    ),
    ('sets', 'sets+block', '', '--S=1,2,3,4'),
    ('residual', 'residual+block', '', ''),
  )
  for name, config, more, words in settings:
    folder = f'{{runs}}/files/{name}'
    train = (
      f'lasers-jax train --config=codec:{config} --workdir={folder} '
      '--config.data.name=folder:images --config.steps={steps} '
      f'--config.evaluate_every=0{more}'
    )
    curve = (
      f'lasers-jax codec curve --model={folder} {words} --context kodak/*.png'
    )
    yield Row(
      f'files/{name}',
      'kodak-networks-runs',
      (train, ' '.join(curve.split())),
      f'{folder}/curve/curve.json',
      (3_000, 50_000),
    )


def measured(
  name: str, file: str, words: str, flag: str = '--json', **fields: Any
) -> Row:
  """Returns the row of a program of this folder, which writes result files."""
  found = f'{{runs}}/results/{file}.json'
  command = f'python benchmarks/{words} {flag}={found}'
  return Row(name, file, (command,), found, **fields)


def codes() -> Iterator[Row]:
  """What the codes of the first seed cost once they are learned."""
  coded = 'lasers', 'residual', 'product', 'fsq', 'bsq'
  names = [f'{name}-{rate}' for rate in RATES.split(',') for name in coded]
  for name in ('vq-0.5625', *names):
    folder = f'{{runs}}/comparison/seed-0/{name.partition("-")[0]}'
    yield measured(
      f'codes/{name}',
      'code-bits',
      f'code_bits.py --runs={{runs}}/codes --steps={{steps}} {folder}/{name}',
      '--output',
      steps=(500, 4_000),
    )


def rules() -> Iterator[Row]:
  """How codebooks and dictionaries learn."""
  for name, file, words, steps in (
    (
      'codebooks',
      'cifar10-codebooks',
      'others vq --picture=docs/collapse.png',
      (1_000, 7_000),
    ),
    (
      'learning',
      'cifar10-lasers-learning',
      'lasers --seeds=0,1,2 --log_every=100',
      (1_000, 7_000),
    ),
    (
      'longer/learning',
      'cifar10-lasers-learning-longer',
      'lasers --log_every=100',
      (7_000, 50_000),
    ),
  ):
    words = f'codebooks.py {words} --workdir={{runs}}/{name} --steps={{steps}}'
    yield measured(name, file, words, steps=steps)


def restorations() -> Iterator[Row]:
  """Damaged images through bottlenecks, and by methods without a model."""
  for name, words in (
    ('cifar10', 'cifar10'),
    ('clothing', 'folder:clothing128 --side=64 --batch_size=4'),
  ):
    yield measured(
      f'restorations/{name}',
      f'{name}-restorations',
      f'restoration_models.py {words} --bits_per_pixel={RATES} '
      f'--steps={{steps}} --workdir={{runs}}/{name}',
    )
  for file, words in (
    ('kodak-superres', '--only=superres'),
    ('kodak-restorations', '--side=256'),
  ):
    words = f'restorations.py folder:kodak {words}'
    yield measured(f'restorations/{file}', file, words)


def digits() -> Row:
  """New digits by priors of one vector an image."""
  runs = [f'{{runs}}/digits/{x}' for x in LATENTS]
  train = [
    f'lasers-jax train --config=mnist:{name} --config.steps={{steps}} '
    f'--workdir={run}'
    for name, run in zip(LATENTS, runs, strict=True)
  ]
  sample = (
    f'lasers-jax sample --workdir={",".join(runs)} --output={{runs}}/digits '
    '--priors=pmfs,pmfs:variant=around,gmm,kde,product,flow,gaussian,normal,'
    'histogram'
  )
  return Row(
    'digits',
    'mnist-priors-runs',
    (*train, sample),
    '{runs}/digits/table.json',
    (4_000, 20_000),
  )


def speed() -> Iterator[Row]:
  """Times; the machine has to be idle."""
  for program, what in SPEED.items():
    yield measured(f'speed/{what}', f'speed-{what}', f'{program}.py')


ROWS: tuple[Row, ...] = (
  *seeded('comparison', 'cifar10-seeds', BOTTLENECKS, (1_000, 7_000)),
  *seeded('longer', 'cifar10-longer', BEST, (7_000, 50_000)),
  compared(
    'vq-1024', 'cifar10-vq-1024-runs', 'vq', rates='0.625', told={'seed': 0}
  ),
  compared(
    'decoders', 'cifar10-decoders-runs', SHARP, PERCEPTUAL, rates='0.5625'
  ),
  compared(
    'clothing-decoders',
    'clothing-decoders-runs',
    SHARP,
    f'{PERCEPTUAL} --config.data.name=folder:clothing128 '
    '--config.data.resize=64',
    rates='0.15625',
    config='codec:vq',
    steps=(500, 5_000),
  ),
  *files(),
  *codes(),
  *rules(),
  *restorations(),
  digits(),
  *speed(),
)
