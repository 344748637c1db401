# finstream for containers: docker build -t finstream .
#
# Built on the Debian that it runs on, so that glibc is the same. The image has no PostgreSQL: in containers the totals are
# in a server of their own (--database-url); the embedded broker works, with its data in the volume /data.
FROM rust:1.95.0-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin finstream \
    && install -D --strip target/release/finstream /out/finstream

FROM debian:12.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 finstream \
    && useradd --uid 10001 --gid finstream --home-dir /data --shell /usr/sbin/nologin finstream \
    && install --directory --owner=finstream --group=finstream --mode=0700 /data
COPY --from=build /out/finstream /usr/local/bin/finstream
COPY packaging/health /usr/local/bin/finstream-health
USER finstream
WORKDIR /data
VOLUME /data
ENV FINSTREAM_DATA_DIR=/data FINSTREAM_HTTP=0.0.0.0:8080 FINSTREAM_INSECURE_LISTEN=true
EXPOSE 8080
# Alive. Whoever starts a container anew when this fails must not do so because PostgreSQL is away; `finstream-health /readyz`
# tells whether each role does its work.
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["finstream-health"]
# finstream drains within 10 s of SIGTERM.
STOPSIGNAL SIGTERM
ENTRYPOINT ["finstream"]
