#!/usr/bin/env bash
# A ten-minute search on CIFAR-10; AUTORANGER_DATA names the folder with cifar-10-batches-bin/ (else it is downloaded).
set -euo pipefail
autoranger search --task cifar --space ranger21 --budget 10m --out "$(dirname "$0")/record.toml"
