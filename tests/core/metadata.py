"""The metadata server that a VM of Google Cloud asks, on loopback."""

import contextlib
import http.server
import threading

VM = dict(
  agent_worker_number='1',
  worker_network_endpoints='a:1:10.0.0.5,b:2:10.0.0.6',
  tpu_env="ACCELERATOR_TYPE: 'v5litepod-8'\n",
)


@contextlib.contextmanager
def metadata_server(**attributes):
  """The metadata server of a VM of Google Cloud; gives its address."""

  class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      folder, _, name = self.path.rpartition('/')
      assert folder == '/computeMetadata/v1/instance/attributes'
      assert self.headers['Metadata-Flavor'] == 'Google'
      found = attributes.get(name.replace('-', '_'))
      self.send_response(404 if found is None else 200)
      self.end_headers()
      self.wfile.write((found or 'not found').encode())

    def log_message(self, *_):
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Answers) as server:
    threading.Thread(target=server.serve_forever, args=[0.01]).start()
    try:
      yield f'127.0.0.1:{server.server_address[1]}'
    finally:
      server.shutdown()
