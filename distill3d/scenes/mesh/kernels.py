"""The z-buffer of `distill3d.scenes.mesh.raster`.

One view at a time, single-threaded, without the GIL, so that views run side by side.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def rasterize_view(screen, depth, vertices, faces, attributes, normals, eye, height, width, supersample):
    """One image ``H W (A + 7)``: attributes, normal, position, mask, each averaged over the covered subpixels."""
    rows, columns = height * supersample, width * supersample
    nearest = np.full((rows, columns), np.inf, np.float32)
    face_at = np.full((rows, columns), -1, np.int32)
    weight_b = np.zeros((rows, columns), np.float32)
    weight_c = np.zeros((rows, columns), np.float32)
    for f in range(len(faces)):
        _draw(f, screen, depth, faces, nearest, face_at, weight_b, weight_c)
    return _resolve(face_at, weight_b, weight_c, vertices, faces, attributes, normals, eye, height, width, supersample)


@njit(cache=True, nogil=True)
def _draw(f, screen, depth, faces, nearest, face_at, weight_b, weight_c):
    """Write one triangle where it is the nearest; store the perspective-correct weights of its vertices b and c."""
    ia, ib, ic = faces[f]
    za, zb, zc = depth[ia], depth[ib], depth[ic]
    if za < 1e-3 or zb < 1e-3 or zc < 1e-3:
        return
    ax, ay = screen[ia]
    bx, by = screen[ib]
    cx, cy = screen[ic]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if abs(area) < 1e-9:
        return
    rows, columns = nearest.shape
    x_low = max(0, int(np.floor(min(ax, bx, cx) - 0.5)))
    x_high = min(columns - 1, int(np.ceil(max(ax, bx, cx) - 0.5)))
    y_low = max(0, int(np.floor(min(ay, by, cy) - 0.5)))
    y_high = min(rows - 1, int(np.ceil(max(ay, by, cy) - 0.5)))
    for y in range(y_low, y_high + 1):
        for x in range(x_low, x_high + 1):
            px, py = x + 0.5, y + 0.5
            wb = ((px - ax) * (cy - ay) - (py - ay) * (cx - ax)) / area
            wc = ((bx - ax) * (py - ay) - (by - ay) * (px - ax)) / area
            wa = 1.0 - wb - wc
            if wa < 0.0 or wb < 0.0 or wc < 0.0:
                continue
            inverse = wa / za + wb / zb + wc / zc
            z = 1.0 / inverse
            if z < nearest[y, x]:
                nearest[y, x] = z
                face_at[y, x] = f
                weight_b[y, x] = wb / zb * z
                weight_c[y, x] = wc / zc * z


@njit(cache=True, nogil=True)
def _resolve(face_at, weight_b, weight_c, vertices, faces, attributes, normals, eye, height, width, supersample):
    """Average the covered subpixels of every pixel; normals are turned to the camera before and rescaled after."""
    count = attributes.shape[1]
    image = np.zeros((height, width, count + 7), np.float32)
    for row in range(height):
        for column in range(width):
            pixel = image[row, column]
            covered = 0
            for y in range(row * supersample, (row + 1) * supersample):
                for x in range(column * supersample, (column + 1) * supersample):
                    f = face_at[y, x]
                    if f >= 0:
                        covered += 1
                        _accumulate(pixel, f, weight_b[y, x], weight_c[y, x], vertices, faces, attributes, normals, eye)
            if covered == 0:
                continue
            for k in range(count + 6):
                pixel[k] /= covered
            n = pixel[count : count + 3]
            length = np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2])
            if length > 1e-8:
                for k in range(3):
                    n[k] /= length
            pixel[count + 6] = covered / (supersample * supersample)
    return image


@njit(cache=True, nogil=True, inline="always")
def _accumulate(pixel, f, wb, wc, vertices, faces, attributes, normals, eye):
    ia, ib, ic = faces[f]
    wa = 1.0 - wb - wc
    count = attributes.shape[1]
    for k in range(count):
        pixel[k] += wa * attributes[ia, k] + wb * attributes[ib, k] + wc * attributes[ic, k]
    facing = 0.0
    for k in range(3):
        p = wa * vertices[ia, k] + wb * vertices[ib, k] + wc * vertices[ic, k]
        pixel[count + 3 + k] += p
        facing += (eye[k] - p) * normals[f, k]
    sign = 1.0 if facing >= 0.0 else -1.0
    for k in range(3):
        pixel[count + k] += sign * normals[f, k]
