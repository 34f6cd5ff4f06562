# SPDX-License-Identifier: Apache-2.0
# Debian packages, one for each component. Compressed and documented as Debian's policy wants them.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_VENDOR Acre)
set(CPACK_PACKAGE_CONTACT "Acre maintainers <maintainers@acre.example>" CACHE STRING "Maintainer: of the packages")
set(CPACK_SET_DESTDIR ON) # /etc is not below /usr
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL acred libacre0 libacre-dev acre-tools)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SOURCE acre)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
set(same "(= ${PROJECT_VERSION}-1)")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "") # each has its own
set(about "Acre is a heap that several processes on one machine share; whoever of them\n\
is killed, the others go on.")

# acre_package(NAME SECTION SUMMARY TEXT)
macro(acre_package name section summary text)
    string(TOUPPER ${name} upper)
    set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name})
    set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION ${section})
    set(CPACK_DEBIAN_${upper}_DESCRIPTION "${summary}\n${about}\n\n${text}")
    install(FILES debian/${name}/overrides COMPONENT ${name}
            DESTINATION share/lintian/overrides RENAME ${name})
    install(FILES debian/copyright ${CMAKE_CURRENT_BINARY_DIR}/changelog.Debian.gz COMPONENT ${name}
            DESTINATION share/doc/${name})
endmacro()

acre_package(acred admin "shared heaps for many processes: daemon"
    "This is the daemon, which owns the memory.")
install(FILES systemd/many-clients.conf DESTINATION share/doc/acred/examples COMPONENT acred)
acre_package(libacre0 libs "shared heaps for many processes: library"
    "This is the library that programs link.")
acre_package(libacre-dev libdevel "shared heaps for many processes: development files"
    "These are the header, the static library and the adapters.")
acre_package(acre-tools utils "shared heaps for many processes: tools"
    "These are acrectl, which looks at a daemon, an example and a benchmark.")
set(CPACK_DEBIAN_ACRED_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers | systemd-sysusers")
set(CPACK_DEBIAN_ACRED_PACKAGE_RECOMMENDS "acre-tools")
foreach(file postinst prerm postrm conffiles)
    list(APPEND CPACK_DEBIAN_ACRED_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_SOURCE_DIR}/debian/acred/${file})
endforeach()
set(CPACK_DEBIAN_LIBACRE0_PACKAGE_RECOMMENDS "acred")
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/shlibs "libacre 0 libacre0 (>= ${PROJECT_VERSION})\n")
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/triggers "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_LIBACRE0_PACKAGE_CONTROL_EXTRA
    ${CMAKE_CURRENT_BINARY_DIR}/shlibs ${CMAKE_CURRENT_BINARY_DIR}/triggers)
set(CPACK_DEBIAN_LIBACRE-DEV_PACKAGE_DEPENDS "libacre0 ${same}")
set(CPACK_DEBIAN_LIBACRE-DEV_PACKAGE_RECOMMENDS "libprotobuf-c-dev")
set(CPACK_DEBIAN_LIBACRE-DEV_PACKAGE_SUGGESTS "liblua5.4-dev, libsqlite3-dev, libuv1-dev")
set(CPACK_DEBIAN_ACRE-TOOLS_PACKAGE_DEPENDS "libacre0 ${same}")
set(CPACK_DEBIAN_ACRE-TOOLS_PACKAGE_RECOMMENDS "acred")

configure_file(debian/changelog.in changelog.Debian @ONLY)
execute_process(COMMAND gzip -9nf ${CMAKE_CURRENT_BINARY_DIR}/changelog.Debian COMMAND_ERROR_IS_FATAL ANY)
include(CPack)
