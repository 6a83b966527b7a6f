// server-everything listens on all interfaces; tests only ever listen on loopback.
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  return typeof port === "object" || typeof rest[0] === "string" ? listen.call(this, port, ...rest) : listen.call(this, port, "127.0.0.1", ...rest);
};
