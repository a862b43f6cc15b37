"""Photos of many requests in, scores out: a bounded queue, threads that decode, and batches for the engine."""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from keras_effnet.center_crop import View
from keras_effnet.http_server.failures import busy
from keras_effnet.images import ImageError, load_image

# Formats whose readers run no other program and that browsers and phones write.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "WEBP")
# A large request hands over only so many photos at a time, so that small ones do not wait for all of it.
WINDOW = 16
Scores = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scored:
    """The scores of a photo, float32 of shape (classes,), or why it has none."""

    scores: np.ndarray | None = None
    error: str | None = None


class PhotoScores:
    """Scores photos for many requests at once.

    Args:
        scores: maps float32 images (batch, size, size, 3), 0..255, to scores; thread-safe.
        view: the pixels that the model gets of a photo.
        batch: the largest batch that `scores` should get. With 1, photos are scored by the threads that decode them.
        threads: the number of threads that decode.
        pixels: the largest photo, in pixels.
        waiting: the number of photos in progress from which on requests are refused.
    """

    def __init__(self, scores: Scores, *, view: View, batch: int, threads: int, pixels: int, waiting: int) -> None:
        self._scores, self._view, self._batch = scores, view, batch
        self._pixels, self._limit = pixels, waiting
        self._pool = ThreadPoolExecutor(threads, "keras-effnet-decode")
        self._ready: queue.SimpleQueue[tuple[np.ndarray, Future[Scored]] | None] = queue.SimpleQueue()
        self._runner = threading.Thread(target=self._run_batches, name="keras-effnet-batches", daemon=True)
        self.waiting = 0
        if batch > 1:
            self._runner.start()

    async def __call__(self, photos: Sequence[Any]) -> list[Scored]:
        """Score the photos of a request, in order. A photo that cannot be read gets an error.

        Args:
            photos: bytes of image files, or float32 images (size, size, 3).

        Raises:
            Refused: too many photos are in progress.
        """
        if self.waiting >= self._limit:
            raise busy(f"The queue is full: {self.waiting} photos are waiting. Send the request again later.")
        results: list[Scored] = [Scored()] * len(photos)
        numbers = iter(range(len(photos)))

        async def feed() -> None:
            for i in numbers:
                results[i] = await self._one(photos[i])

        window = min(WINDOW, len(photos))
        self.waiting += window
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(window):
                    group.create_task(feed())
        finally:
            self.waiting -= window
        return results

    async def _one(self, photo: Any) -> Scored:
        result: Future[Scored] = Future()
        self._pool.submit(self._prepare, photo, result)
        return await asyncio.wrap_future(result)

    def _prepare(self, photo: Any, result: "Future[Scored]") -> None:
        if not result.set_running_or_notify_cancel():
            return  # its request ran out of time
        try:
            image = photo if isinstance(photo, np.ndarray) else self.decode(photo)
        except ValueError as error:
            result.set_result(Scored(error=str(error)))
            return
        except BaseException as error:  # such as MemoryError, which must not stop the thread
            result.set_exception(error)
            return
        if self._batch > 1:
            self._ready.put((image, result))
        else:
            self._score([(image, result)])

    def decode(self, data: bytes) -> np.ndarray:
        """Decode, crop and resize a photo: float32 (size, size, 3), 0..255.

        Raises:
            ImageError: it cannot be read, or has too many pixels.
        """
        return self._view.pixels(self.load(data))

    def load(self, data: bytes) -> np.ndarray:
        """Decode a photo: uint8 (height, width, 3)."""
        return load_image(data, self._inspect)

    def _inspect(self, image: Image.Image) -> None:
        if image.format not in FORMATS:
            raise ImageError(f"has the format {image.format}. Expected one of {', '.join(FORMATS)}. Convert the file.")
        if image.width * image.height > self._pixels:
            raise ImageError(
                f"is too large: {image.width} x {image.height} pixels. Expected at most {self._pixels:,} pixels. "
                "Resize the photo."
            )

    def _run_batches(self) -> None:
        while True:
            item = self._ready.get()
            batch = [item]
            while item is not None and len(batch) < self._batch:
                try:
                    item = self._ready.get_nowait()
                except queue.Empty:
                    break
                batch.append(item)
            self._score([item for item in batch if item is not None])
            if item is None:
                return

    def _score(self, batch: Sequence[tuple[np.ndarray, "Future[Scored]"]]) -> None:
        if not batch:
            return
        try:
            rows = self._scores(np.stack([image for image, _ in batch]))
        except Exception as error:
            for _, result in batch:
                result.set_exception(error)
            return
        for row, (_, result) in zip(rows, batch, strict=True):
            finite = bool(np.isfinite(row).all())
            result.set_result(Scored(row) if finite else Scored(error="The scores are NaN or infinite."))

    def close(self) -> None:
        """Stop the threads once the photos in progress are scored."""
        self._pool.shutdown()
        self._ready.put(None)
        if self._batch > 1:
            self._runner.join()
