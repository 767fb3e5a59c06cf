#include "agent/notify.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/datagram_protocol.hpp>

#include "agent/log.h"

namespace agent {

void notify_service_manager(const std::string& socket, std::string_view state) {
  using boost::asio::local::datagram_protocol;
  if (socket.empty()) {
    return;
  }
  std::string path = socket;
  if (path.front() == '@') {
    path.front() = '\0';  // Linux's abstract names
  }
  boost::system::error_code error;
  try {
    boost::asio::io_context context;
    datagram_protocol::socket out(context);
    out.open(datagram_protocol(), error);
    out.non_blocking(true, error);
    out.send_to(boost::asio::buffer(state), datagram_protocol::endpoint(path), 0, error);
  } catch (const boost::system::system_error& e) {  // a path that is too long
    error = e.code();
  }
  if (error) {
    log::warn("notify_failed", {{"socket", socket}, {"error", error.message()}});
  }
}

}  // namespace agent
