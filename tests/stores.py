"""Buckets on this machine: emulators of gs:// and s3:// on loopback."""

import contextlib
import functools
import http.server
import io
import logging
import os
import pathlib
import re
import threading
import urllib.parse
from collections.abc import Iterator

BUCKET = 'bucket'  # that every emulator has
FORBIDDEN: set[str] = set()  # parts of the paths that gs:// refuses


@contextlib.contextmanager
def served(handler) -> Iterator[str]:
  """Runs an HTTP server in a thread; gives its address."""
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  server.handle_error = lambda *_: (
    None
  )  # gcsfs breaks off what it needs no more
  thread = threading.Thread(target=server.serve_forever, args=(0.05,))
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}'
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
  """Sets variables of the environment, for processes that start here, too."""
  before = {name: os.environ.get(name) for name in values}
  os.environ.update(values)
  try:
    yield
  finally:
    for name, value in before.items():
      os.environ.pop(name, None)
      if value is not None:
        os.environ[name] = value


@contextlib.contextmanager
def gs() -> Iterator[str]:
  """Emulates gs://, with the preconditions that the real store has.

  https://cloud.google.com/storage/docs/request-preconditions
  """
  from gcp_storage_emulator import storage
  from gcp_storage_emulator.exceptions import NotFound
  from gcp_storage_emulator.handlers import buckets
  from gcp_storage_emulator.server import RequestHandler

  # It logs what is not there, and what its clients break off.
  logging.getLogger('gcp_storage_emulator').setLevel(logging.CRITICAL)
  kept, lock = storage.Storage(use_memory_fs=True), threading.Lock()
  buckets.create_bucket(BUCKET, kept)

  class Handler(RequestHandler):
    generation = None  # of the object that is asked for

    def _in_turn(self):
      with lock:
        self._end_parts_in_full()
        self.generation = there = self._generation()
        if any(x in urllib.parse.unquote(self.path) for x in FORBIDDEN):
          self.send_error(403)
        elif self._asked('ifGenerationMatch') not in (None, there):
          self.send_error(412)
        elif there and self._asked('ifGenerationNotMatch') == there:
          self.send_error(304)
        else:
          getattr(RequestHandler, f'do_{self.command}')(self)

    def _end_parts_in_full(self):
      """Ends the parts of an upload with CR LF, as MIME has it.

      gcsfs writes a line feed alone, and the emulator takes it together with a
      carriage return that the file ends with: one file in 256 was cut short.
      """
      kind = self.headers['Content-Type'] or ''
      if kind.startswith('multipart/related'):
        body = self.rfile.read(int(self.headers['Content-Length']))
        content, end = body.rsplit(b'\n--', 1)
        body = content + b'\r\n--' + end
        self.headers.replace_header('Content-Length', str(len(body)))
        self.rfile = io.BytesIO(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _in_turn

    def _url(self):
      url = urllib.parse.urlparse(self.path)
      return url.path, urllib.parse.parse_qs(url.query)

    def _generation(self):
      path, query = self._url()
      found = re.match(r'.*/b/([^/]+)/o(?:/(.+))?', path)
      if not found:
        return None
      name = found[2] or query.get('name', [''])[0]
      try:
        name = urllib.parse.unquote(name)
        return kept.get_file_obj(found[1], name)['generation']
      except NotFound:
        return '0'

    def _asked(self, condition):
      return self._url()[1].get(condition, [None])[0]

    def end_headers(self):
      if self.command == 'GET' and self.generation not in (None, '0'):
        self.send_header('x-goog-generation', self.generation)
      super().end_headers()

  with (
    served(functools.partial(Handler, kept)) as address,
    environment(
      STORAGE_EMULATOR_HOST=address,
      TENSORSTORE_GCS_HTTP_URL=address,
      CLOUD_STORAGE_EMULATOR_ENDPOINT=address,
    ),
  ):
    yield f'gs://{BUCKET}'


@contextlib.contextmanager
def s3() -> Iterator[str]:
  """Emulates s3://."""
  from moto.server import ThreadedMotoServer

  logging.getLogger('werkzeug').setLevel(logging.ERROR)

  server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
  server.start()
  try:
    host, port = server.get_host_and_port()
    with environment(
      AWS_ENDPOINT_URL=f'http://{host}:{port}',
      AWS_ACCESS_KEY_ID='nobody',
      AWS_SECRET_ACCESS_KEY='nothing',
      AWS_DEFAULT_REGION='us-east-1',
    ):
      import s3fs

      s3fs.S3FileSystem(use_listings_cache=False).mkdir(BUCKET)
      yield f's3://{BUCKET}'
  finally:
    server.stop()


def upload(folder, address: str) -> str:
  """Copies a folder into a bucket; returns the address."""
  from lasers_jax.core import storage

  for file in pathlib.Path(folder).rglob('*'):
    if file.is_file():
      target = f'{address}/{file.relative_to(folder)}'
      with storage.written_whole(target) as copy:
        copy.write(file.read_bytes())
  return address
