"""Two light fields in one view: each where it stands, the nearer one before the other, single rows untouched."""

from __future__ import annotations

import math

import pytest
import torch

from distill3d.camera import make_cameras
from distill3d.embedded.light_field import LightField, Seen
from distill3d.embedded.light_parts import ObjectPair, look_at_parts, whole_and_parts
from distill3d.embedded.network import PixelUNet2DConditionModel

WIDTH = 8
AWAY = (0.0, 0.0, 50.0)  # out of every view


class Balls(LightField):
    """Sees a ball of radius .3 at the origin of each text's own frame, in the colour of the text's first numbers."""

    def __init__(self) -> None:
        super().__init__(WIDTH, hidden=4, layers=1, experts=1)

    def seen_by(self, c2w, fovy_rad, known, text) -> Seen:
        side = 64
        place = (torch.arange(side) + 0.5) / side * 2.0 - 1.0
        y, x = torch.meshgrid(-place, place, indexing="ij")
        reach = torch.tan(0.5 * fovy_rad)[:, None, None]
        ray = torch.stack([x * reach, y * reach, -torch.ones_like(x * reach)], -1)
        ray = torch.nn.functional.normalize(torch.einsum("bij,bhwj->bhwi", c2w[:, :3, :3], ray), dim=-1)
        origin = c2w[:, None, None, :3, 3]
        foot = origin - (origin * ray).sum(-1, keepdim=True) * ray
        mask = (foot.norm(dim=-1) < 0.3).float()[:, None]
        features = torch.nn.functional.avg_pool2d(mask, 4).expand(-1, 4, -1, -1) * text[:, :4, None, None]
        return Seen(features, torch.cat([text[:, :3, None, None] * mask, mask], 1), known)


RED, BLUE = torch.eye(WIDTH)[0], torch.eye(WIDTH)[2]


def parts(first, second, plane=(0.0, 0.0, 1.0, 0.0), rows: int = 1) -> ObjectPair:
    """A red and a blue ball of (scale, centre)."""
    scale = torch.tensor([[first[0]], [second[0]]]).expand(2, rows)
    center = torch.tensor([[first[1]], [second[1]]]).expand(2, rows, 3)
    return ObjectPair(
        torch.stack([RED, BLUE])[:, None].expand(2, rows, WIDTH), scale, center, torch.tensor([plane] * rows)
    )


def seen(camera, given: ObjectPair) -> Seen:
    light, known = Balls(), torch.ones(len(camera))
    nothing = Seen(torch.zeros(len(camera), 4, 16, 16), torch.zeros(len(camera), 4, 64, 64), known)
    return look_at_parts(light, camera.c2w, camera.fovy_rad, known, nothing, given)


def camera(elevation=20.0, azimuth=30.0, distance=1.55, fovy=39.0):
    return make_cameras(*torch.tensor([[elevation], [azimuth], [distance], [fovy]]).unbind(), height=64, width=64)


@pytest.mark.parametrize("elevation", [-10.0, 20.0, 75.0, 90.0])
def test_an_object_alone_in_the_middle_is_what_the_field_sees_of_it(elevation):
    view = camera(elevation=elevation)
    composed = seen(view, parts((1.0, (0.0, 0.0, 0.0)), (1.0, AWAY)))
    alone = Balls().seen_by(view.c2w, view.fovy_rad, torch.ones(1), RED[None])
    assert float((composed.guess - alone.guess).abs().mean()) < 0.01
    assert float((composed.features - alone.features * (alone.features > 0)).abs().mean()) < 0.02


@pytest.mark.parametrize("center", [(0.0, 0.2, 0.1), (0.15, -0.2, -0.1)])
def test_a_moved_ball_is_seen_where_and_as_large_as_geometry_says(center):
    """The outline of a ball of radius r at distance d is a cone of sine r/d around the direction of its centre."""
    view, scale = camera(), 0.6
    mask = seen(view, parts((scale, center), (1.0, AWAY))).guess[0, 3]
    place = (torch.arange(64) + 0.5) / 64 * 2.0 - 1.0
    y, x = torch.meshgrid(-place, place, indexing="ij")
    reach = math.tan(math.radians(19.5))
    rays = torch.nn.functional.normalize(torch.stack([x * reach, y * reach, -torch.ones_like(x)], -1), dim=-1)
    towards = torch.tensor(center) - view.c2w[0, :3, 3]
    cosine = rays @ (view.c2w[0, :3, :3].T @ towards) / towards.norm()
    expected = cosine > math.cos(math.asin(0.3 * scale / float(towards.norm())))
    assert float((mask - expected.float()).abs().mean()) < 0.01
    assert float(expected.float().mean()) > 0.05


@pytest.mark.parametrize(("elevation", "front"), [(40.0, 0), (-40.0, 2)])
def test_what_stands_on_the_cameras_side_of_the_plane_hides_the_other(elevation, front):
    composed = seen(camera(elevation=elevation), parts((0.5, (0.0, 0.0, 0.16)), (0.5, (0.0, 0.0, -0.16))))
    both = composed.guess[0, 0] + composed.guess[0, 2]
    assert float(both.max()) < 1.01  # nowhere do the two add up
    areas = composed.guess[0, [0, 2]].sum((1, 2))
    assert float(areas[front // 2]) > 1.2 * float(areas[1 - front // 2])
    assert float((composed.guess[0, 3] - both).abs().max()) < 1e-5


def test_a_row_of_one_object_is_left_as_it_is():
    view = make_cameras(
        *torch.tensor([[20.0, 20.0], [0.0, 0.0], [1.5, 1.5], [39.0, 39.0]]).unbind(), height=64, width=64
    )
    given = parts((0.5, (0.0, 0.0, 0.2)), (0.5, (0.0, 0.0, -0.2)), rows=2)
    given = given._replace(
        scale=given.scale * torch.tensor([1.0, 0.0]), center=given.center * torch.tensor([1.0, 0.0])[:, None]
    )
    known = torch.ones(2)
    whole = Seen(torch.rand(2, 4, 16, 16), torch.rand(2, 4, 64, 64), known)
    composed = look_at_parts(Balls(), view.c2w, view.fovy_rad, known, whole, given)
    assert torch.equal(composed.guess[1], whole.guess[1])
    assert torch.equal(composed.features[1], whole.features[1])
    assert not torch.equal(composed.guess[0], whole.guess[0])
    assert composed.composed is not None
    assert composed.composed.tolist() == [1.0, 0.0]


def test_the_network_answers_a_single_text_alike_in_a_row_that_has_room_for_parts():
    torch.manual_seed(0)
    network = PixelUNet2DConditionModel(block_out_channels=(32, 32), light_hidden=16, light_experts=2).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    view, tokens, pooled = camera(), torch.randn(1, 5, 256), torch.randn(1, 256)
    wide = torch.nn.functional.pad(pooled, (0, 2 * 256 + 12))
    text, none = whole_and_parts(pooled, 256)
    assert text is pooled
    assert none is None
    conditions = {"c2w": view.c2w, "fovy_rad": view.fovy_rad}
    z, t = torch.randn(1, 3, 64, 64), torch.tensor([800])
    answers = [network(z, t, tokens, {"text_embeds": e, **conditions}).sample for e in (pooled, wide)]
    torch.testing.assert_close(answers[0], answers[1], atol=1e-6, rtol=0)
    wide[:, 256:512], wide[:, 512:768] = torch.randn(1, 256), torch.randn(1, 256)
    wide[:, 768:] = torch.tensor([0.5, 0.0, 0.0, 0.2, 0.5, 0.0, 0.0, -0.2, 0.0, 0.0, 1.0, 0.0])
    composed = network(z, t, tokens, {"text_embeds": wide, **conditions}).sample
    assert float((composed - answers[0]).abs().max().detach()) > 1e-3
