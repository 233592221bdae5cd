"""What every room stands on: meshes, images, files, ranges, signals."""
