# compresslab in a container. docs/container.md says how to build and run it.
#
#   docker build -t compresslab .                               for machines without a GPU
#   docker build -t compresslab:cuda --build-arg VARIANT=cuda . for NVIDIA's GPUs

# The version that CI tests.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
# cpu: PyTorch's build for processors. cuda: the one of PyPI, which installs CUDA's libraries.
ARG VARIANT=cpu
ARG CPU_WHEELS=https://download.pytorch.org/whl/cpu
ARG EXTRAS=gptq,torchao,ray
# gptqmodel is published as source. What is installed here is not in the image, so its versions are the distribution's.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml README.md LICENSE ./
COPY recipes recipes
COPY compresslab compresslab
# The lock without hashes: PyTorch's build for processors is another file than the one that PyPI has under the same version.
RUN case "$VARIANT" in \
      cpu) export PIP_EXTRA_INDEX_URL="$CPU_WHEELS" ;; \
      cuda) ;; \
      *) echo "VARIANT is cpu or cuda, not '$VARIANT'" >&2; exit 2 ;; \
    esac \
 && pip install --no-cache-dir --constraint compresslab/data/locked.txt torch setuptools \
 && pip install --no-cache-dir --constraint compresslab/data/locked.txt ".[$EXTRAS]" \
 && pip check

FROM python:${PYTHON}-slim-bookworm
# bubblewrap is the sandbox of programs that a model wrote; Triton compiles with gcc when a GPU kernel is first used.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends bubblewrap gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 compresslab \
 && install --directory --owner=compresslab --group=compresslab /cache /store /work
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    XDG_CACHE_HOME=/cache \
    HF_HOME=/cache/huggingface \
    COMPRESSLAB_STORE=/store
# By its number, which orchestrators compare with 0 without knowing names.
USER 1000
WORKDIR /work
VOLUME ["/cache", "/store"]
ENTRYPOINT ["compresslab"]
CMD ["--help"]
