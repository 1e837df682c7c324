"""Lightning modules that wire one scene, one prior and one guidance together."""
