"""Shards in Google Cloud Storage as TensorFlow itself reads them, without anything of ours.

TensorFlow asks two hosts whose names are part of its code, over TLS. Here they are played by a
proxy with a certificate of its own, behind which the emulator answers.
"""

import datetime as dt
import hashlib
import socket
import ssl
import subprocess
import sys
import threading
import uuid

import pytest
from conftest import make_environment, read_record
from servers import upload

from reader import ReadOptions, open_shards
from reader.plan.planning import list_files
from reader.records.record_files import RecordFiles

HOSTS = ("www.googleapis.com", "storage.googleapis.com")

READ = """
import hashlib, sys
import tensorflow as tf
paths = sorted(tf.io.gfile.glob(sys.argv[1] + "/train-*.tfrecord"))
digest = hashlib.sha256()
for record in tf.data.TFRecordDataset(paths):
    digest.update(record.numpy())
print(len(paths), digest.hexdigest())
"""


def write_certificate(folder):
    """A certificate for both hosts, and its key, in one file."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOSTS[0])])
    now = dt.datetime.now(dt.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def serve_tunnels(listener: socket.socket, context: ssl.SSLContext, target: int, asked: set):
    """Answers CONNECT, ends the TLS that follows, and passes what is in it on."""
    while True:
        try:
            line, _ = listener.accept()
        except OSError:
            return
        arguments = (line, context, target, asked)
        threading.Thread(target=serve_tunnel, args=arguments, daemon=True).start()


def serve_tunnel(line: socket.socket, context: ssl.SSLContext, target: int, asked: set):
    with line:
        asked.add(line.recv(4096).split(b" ")[1].split(b":")[0].decode())
        line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with (
            context.wrap_socket(line, server_side=True) as inner,
            socket.create_connection(("127.0.0.1", target)) as outer,
        ):
            back = threading.Thread(target=copy, args=(outer, inner), daemon=True)
            back.start()
            copy(inner, outer)
            back.join()


def copy(source: socket.socket, sink: socket.socket):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_tensorflow_reads_the_shards_as_they_are(gs_server, converted, tmp_path):
    gs_server.set_faults()
    address = upload(converted, gs_server.path(uuid.uuid4().hex))
    certificate = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    asked: set[str] = set()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = (listener, context, gs_server.port, asked)
        threading.Thread(target=serve_tunnels, args=arguments, daemon=True).start()
        run = subprocess.run(
            [sys.executable, "-c", READ, str(address)],
            env=make_environment(
                https_proxy=f"http://127.0.0.1:{listener.getsockname()[1]}",
                CURL_CA_BUNDLE=str(certificate),
                GOOGLE_AUTH_TOKEN_FOR_TESTING="any",
                TF_CPP_MIN_LOG_LEVEL="3",
            ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        listener.shutdown(socket.SHUT_RDWR)
    shards = open_shards(converted)
    files = RecordFiles(list_files(shards.folder, shards.manifest, "train", ReadOptions()))
    digest = hashlib.sha256()
    for number in range(len(files)):
        digest.update(read_record(files, number))
    assert run.returncode == 0, run.stderr[-2_000:]
    assert run.stdout == f"3 {digest.hexdigest()}\n"
    assert asked == set(HOSTS)
