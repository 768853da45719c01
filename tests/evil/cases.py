"""Where the modules of this folder put their damaged files and what is expected of each."""
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = []


def put(name, data):
    """A file that belongs to a case."""
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def case(name, data, message, reader=None, exit_code=66, **options):
    """A file, the reader it is for (by default its folder's name) and the message it must give. `options` say how the reader is called."""
    put(name, data)
    EXPECTED.append({"file": name, "reader": reader or name.split("/")[0], "exit_code": exit_code, "message": message} | options)
