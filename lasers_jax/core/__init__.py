"""The base of all rooms: meshes, images, files, ranges, signals."""
