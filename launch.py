from distill3d.cli import main

raise SystemExit(main())
