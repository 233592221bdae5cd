"""The tables of recoded latents: their columns, and how values are written."""

from tables import Column, Row, Table, code

COLUMNS = (
  Column('code', 'title'),
  Column('bits per pixel, fixed length', 'fixed', '.3f'),
  Column('files', 'file', '.3f'),
  Column('nMSE of the latent', 'nmse', '.3f'),
  Column('PSNR in dB', 'psnr/mean', '.2f'),
  Column('SSIM', 'ssim/mean', '.3f'),
  Column('LPIPS', 'lpips-alexnet/mean', '.3f'),
)


def by_bits(rows: list[Row]) -> list[Row]:
  """Titles the rows, with the smallest files first and the ceiling last."""
  found = []
  for row in rows:
    coded = 'bottleneck' in row
    title = row['name']
    if coded:
      first, _, rest = title.partition(' ')
      title = f'{code(first)} {rest}'
    found.append({**row, 'title': title})
  return sorted(found, key=lambda row: row['file'] or float('inf'))


TABLES = {
  name: Table(name, COLUMNS, by_bits)
  for name in ('recoding-taef2', 'recoding-vaelight')
}
