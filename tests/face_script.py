"""The whole library in a few lines: train, use, compress, export, measure.

Runs in any folder, in a minute on two CPU cores:

  python face_script.py
"""

import lasers_jax as lj

# Train on photographs that come along.
config = lj.config(
  'photos',
  bottleneck='vq',
  bottleneck__K=64,
  steps=2,
  evaluate_every=0,
  tensorboard=False,  # TensorFlow takes long to import
)
lj.train(config, 'run')

# Use what is trained: images are uint8 or float in [0, 1], of any size.
model = lj.load('run')
images = model.experiment.data.first_images(model.open_split('test'), 2)
image = images[0][:61, :90]
codes = model.encode(image)
z = model.latents(image)
decoded = model.decode(codes, size=image.shape[:2])
assert (decoded == model.reconstruct(image)).all()
print(f'codes {codes.shape}, latents {z.shape}')

# Files: the codes of training images are counted once.
model.fit_codec()
data = model.compress(image)
assert (model.decompress(data) == decoded).all()
print(f'{8 * len(data) / image[..., 0].size:.3f} bits per pixel in a file')

# A folder that needs neither checkpoints nor data.
model.export('photos-model')
exported = lj.load('photos-model')
assert exported.compress(image) == data

# A codec that comes along: no training, and no data.
photo_codec = lj.load('photo-codec')
data = photo_codec.compress(image)
assert photo_codec.decompress(data).shape == image.shape
assert lj.models()['photo-codec']['weights'] == photo_codec.weights

# Measure: quality beside the bits that it costs.
results = lj.evaluate(exported, data=images)
bits = results['bits_per_pixel']['fixed_length']
print(f'PSNR {results["psnr"]["mean"]:.2f} dB at {bits:.2f} bits per pixel')
