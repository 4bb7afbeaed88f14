# docker build -t cutover .
# docker run --read-only -v cutover-state:/var/lib/cutover -p 8080:8080 -p 127.0.0.1:9900:9900 \
#   -e LEGACY=legacy:8080 -e NEW=new:8080 -e CUTOVER_TOKEN=... cutover
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --release --locked --bin cutover
# A fresh volume takes the owner of the folder that it is mounted over.
RUN mkdir /state

# The C library and certificates, and nothing that a person could log in to.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/cutover /usr/local/bin/cutover
COPY --from=build --chown=65532:65532 /state /var/lib/cutover
COPY config/container.yaml /etc/cutover/cutover.yaml
COPY LICENSE /usr/share/doc/cutover/LICENSE
USER 65532:65532
VOLUME ["/var/lib/cutover"]
EXPOSE 8080 9900
HEALTHCHECK --interval=10s --timeout=3s CMD ["/usr/local/bin/cutover", "status"]
ENTRYPOINT ["/usr/local/bin/cutover"]
CMD ["serve", "--config", "/etc/cutover/cutover.yaml"]
